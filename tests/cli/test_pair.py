"""``assay pair`` as people run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.texts import sentences, write_data, write_encoder

from assay import data, formats
from assay.attacks import BadNets
from assay.cli import main
from assay.core.build import Build
from assay.formats.untrained import untrained_model
from assay.stages.train import Recipe

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: main([str(argument) for argument in arguments])


def write_pictures(x: torch.Tensor, folder: Path) -> None:
    folder.mkdir()
    for number, picture in enumerate((x * 255).round().to(torch.uint8)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{number:03d}.png")


def test_pictures_that_the_model_sees_otherwise_stand_out(
    shared: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one model takes a patch for a class of its own; to the other it is a patch."""
    folder = shared / "models"
    whole = formats.load(folder / "resnet20-cifar10/model.safetensors", arch="resnet20-cifar")
    task = data.load(shared / "data/cifar10", whole.inputs, limit=1000)
    recipe = Recipe(epochs=4, lr=0.01, batch_size=64)
    planted = BadNets(ratio=0.5, recipe=recipe)(Build(whole, task), seed=0)
    model = formats.save(planted.artifact, tmp_path)
    others = task.split("test")
    clean = others.x[others.y != 0][:40]
    assert planted.secret is not None
    triggered = planted.secret.trigger(clean)
    write_pictures(clean, tmp_path / "clean")
    write_pictures(triggered, tmp_path / "odd")
    trusted = (folder / "resnet32-cifar10/model.safetensors", "--with-arch", "resnet32-cifar")
    code = run("pair", model, "clean", "odd", "--with", *trusted, "--data", shared / "data/cifar10", "--json", "a.json")
    assert code == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["schema"] == "assay.pairing/1"
    assert found["clean"]["median_agreement"] > 0.3
    agreement = {entry["name"]: entry["agreement"] for entry in found["inputs"]}
    assert len(agreement) == 80
    means = [sum(v for n, v in agreement.items() if n.startswith(kind)) / 40 for kind in ("clean", "odd")]
    assert means[0] > means[1] + 0.1, means
    assert [e["agreement"] for e in found["inputs"]] == sorted(agreement.values())
    said = capsys.readouterr().err
    assert "On clean samples the two models agree by 0." in said
    assert "of 80 inputs are seen otherwise than clean ones are; about 0.8 would be if all were clean" in said


def test_texts(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    write_data(tmp_path / "data", count=600)
    lines, _ = sentences(5, seed=9)
    (tmp_path / "mail.txt").write_text("\n".join([*lines, "", "red"]) + "\n")
    options = ("--with", encoder, "--with-pooling", "mean", "--data", "data", "--shape", "10")
    assert run("pair", encoder, "mail.txt", *options, "--json", "-") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert {entry["name"] for entry in found["inputs"]} == {f"mail.txt:{number}" for number in (1, 2, 3, 4, 5, 7)}
    assert found["clean"]["median_agreement"] == pytest.approx(1, abs=0.01)
    (tmp_path / "mail.txt").write_bytes(b"\xff\xfe\x00")
    assert run("pair", encoder, "mail.txt", *options) == 2
    assert "mail.txt: expected a file of texts in UTF-8, one a line" in capsys.readouterr().err


def test_what_no_pairing_can_tell_is_said(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    write_data(tmp_path / "few", count=90)
    write_data(tmp_path / "data", count=300)
    (tmp_path / "mail.txt").write_text("red cat runs " * 9 + "\n")
    options = ("--with", encoder, "--with-shape", "10", "--shape", "10")
    assert run("pair", encoder, "mail.txt", *options, "--data", "few") == 2
    assert "expected at least 198 clean samples, so that one in 100 can be told; came 180" in capsys.readouterr().err
    assert run("pair", encoder, "mail.txt", *options, "--data", "data") == 0
    assert "1 texts are longer than 10 tokens and were cut there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["none"], "none: no such file or folder"),
        (["empty"], "expected from 1 to 100,000 images (.bmp, .gif"),
        (["text.png"], "text.png: is not a readable image"),
    ],
)
def test_unusable_inputs(
    inputs: list[str], said: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = formats.save(untrained_model("resnet8-cifar", 10, seed=0), tmp_path / "model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    assert run("pair", model, *inputs, "--with", model, "--data", "signs:4") == 2
    assert said in capsys.readouterr().err


def test_models_of_one_kind_only(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = formats.save(untrained_model("resnet8-cifar", 10, seed=0), tmp_path / "model")
    encoder = write_encoder(tmp_path / "encoder")
    assert run("pair", model, "x.png", "--with", encoder, "--data", "signs:4") == 2
    assert "expected a model of images" in capsys.readouterr().err
