"""``assay pair``: inputs with different embeddings in two models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import Run
from support.texts import sentences, write_data, write_encoder

from assay import data, formats
from assay.attacks import BadNets
from assay.core.build import Build
from assay.formats.untrained import untrained_model
from assay.stages.train import Recipe
from assay.triggers import Patch

pytestmark = pytest.mark.slow


def write_images(x: torch.Tensor, folder: Path) -> None:
    folder.mkdir()
    for number, image in enumerate((x * 255).round().to(torch.uint8)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:03d}.png")


def write_npz(x: torch.Tensor, path: Path) -> Path:
    np.savez(path, x=(x * 255).round().to(torch.uint8).numpy())
    return path


def test_triggered_images_have_low_agreement(shared: Path, run: Run, tmp_path: Path) -> None:
    folder = shared / "models"
    whole = formats.load(folder / "resnet20-cifar10/model.safetensors", arch="resnet20-cifar")
    task = data.load(shared / "data/cifar10", whole.inputs, limit=400)
    recipe = Recipe(epochs=4, lr=0.02, batch_size=32)
    planted = BadNets(patch=Patch(size=6), ratio=0.5, recipe=recipe)(Build(whole, task), seed=0)
    model = formats.save(planted.artifact, tmp_path)
    others = task.split("test")
    clean = others.x[others.y != 0][:40]
    assert planted.secret is not None
    triggered = planted.secret.trigger(clean)
    write_images(clean, tmp_path / "clean")
    write_images(triggered, tmp_path / "odd")
    trusted = (folder / "resnet32-cifar10/model.safetensors", "--with-arch", "resnet32-cifar")
    samples = write_npz(others.x, tmp_path / "samples.npz")
    result = run("pair", model, "clean", "odd", "--with", *trusted, "--data", samples, "--json", "a.json")
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["schema"] == "assay.pairing/1"
    assert found["clean"]["median_agreement"] > 0.3
    agreement = {entry["name"]: entry["agreement"] for entry in found["inputs"]}
    assert len(agreement) == 80
    means = [sum(v for n, v in agreement.items() if n.startswith(kind)) / 40 for kind in ("clean", "odd")]
    assert means[0] > means[1] + 0.1, means
    assert [e["agreement"] for e in found["inputs"]] == sorted(agreement.values())
    assert re.search(r"Median agreement on [\d,]+ clean samples: 0\.\d\d", result.err)
    assert "of 80 inputs stand out. Expected if all are clean: about 0.8" in result.err


def test_texts_are_compared_line_by_line(run: Run, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    write_data(tmp_path / "data", count=600)
    lines, _ = sentences(5, seed=9)
    (tmp_path / "mail.txt").write_text("\n".join([*lines, "", "red"]) + "\n")
    options = ("--with", encoder, "--with-pooling", "mean", "--data", "data", "--shape", "10")
    result = run("pair", encoder, "mail.txt", *options, "--json", "-")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert {entry["name"] for entry in found["inputs"]} == {f"mail.txt:{number}" for number in (1, 2, 3, 4, 5, 7)}
    assert found["clean"]["median_agreement"] == pytest.approx(1, abs=0.01)
    (tmp_path / "mail.txt").write_bytes(b"\xff\xfe\x00")
    result = run("pair", encoder, "mail.txt", *options)
    assert result.code == 2
    assert "mail.txt: expected a file of texts in UTF-8, one a line" in result.err


def test_few_clean_samples_and_long_texts_are_reported(run: Run, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    write_data(tmp_path / "few", count=90)
    write_data(tmp_path / "data", count=300)
    (tmp_path / "mail.txt").write_text("red cat runs " * 9 + "\n")
    options = ("--with", encoder, "--with-shape", "10", "--shape", "10")
    result = run("pair", encoder, "mail.txt", *options, "--data", "few")
    assert result.code == 2
    assert "expected at least 198 clean samples for a rate of one in 100, got 180" in result.err
    result = run("pair", encoder, "mail.txt", *options, "--data", "data")
    assert result.code == 0
    assert "1 texts are longer than 10 tokens. The rest of them was ignored" in result.err


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["none"], "none: no such file or folder"),
        (["empty"], "expected from 1 to 100,000 images (.bmp, .gif"),
        (["text.png"], "text.png: is not a readable image"),
    ],
)
def test_unusable_input_is_named(inputs: list[str], message: str, run: Run, tmp_path: Path) -> None:
    model = formats.save(untrained_model("resnet8-cifar", 10, seed=0), tmp_path / "model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    samples = write_npz(torch.rand(200, 3, 32, 32), tmp_path / "samples.npz")
    result = run("pair", model, *inputs, "--with", model, "--data", samples)
    assert result.code == 2
    assert message in result.err


def test_models_of_two_modalities_are_rejected(run: Run, tmp_path: Path) -> None:
    model = formats.save(untrained_model("resnet8-cifar", 10, seed=0), tmp_path / "model")
    encoder = write_encoder(tmp_path / "encoder")
    result = run("pair", model, "x.png", "--with", encoder, "--data", "signs:4")
    assert result.code == 2
    assert "expected a model of images" in result.err
