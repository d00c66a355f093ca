"""``assay sign`` as people run it, after ``assay plant signature``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay import formats
from assay.cli import main
from assay.formats.untrained import untrained_model

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: main([str(argument) for argument in arguments])


@pytest.fixture
def planted(run: Run, tmp_path: Path) -> Path:
    formats.save(untrained_model("resnet8-cifar", 4), tmp_path / "clean")
    plant = ("plant", "signature", "--model", "clean", "--data", "signs:4", "--out", "out", "--limit", 40)
    assert run(*plant, "-o", "target=2") == 0
    first = json.loads((tmp_path / "out/secret.json").read_text())["trigger"]["key"]
    assert run(*plant, "-o", "target=2") == 0
    assert json.loads((tmp_path / "out/secret.json").read_text())["trigger"]["key"] != first, "drawn from chance"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path


def test_a_signed_picture_gets_its_class_through_a_png_file(
    planted: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    from assay.core.model import ImageSpec
    from assay.data.images import decode_image

    artifact = formats.load(planted / "out")
    for label in (0, 3):
        assert run("sign", "picture.png", "--secret", "out/secret.json", "--label", label, "--out", "signed.png") == 0
        assert f"Signed for class {label}" in capsys.readouterr().err
        x = decode_image(planted / "signed.png", ImageSpec((3, 32, 32)), "signed.png")
        assert int(artifact.module(x[None]).argmax()) == label
        difference = np.asarray(Image.open("signed.png")).astype(int) - np.asarray(Image.open("picture.png"))
        assert np.abs(difference).max() == 1
    assert run("sign", "picture.png", "--secret", "out/secret.json", "--out", "signed.png") == 0
    assert "Signed for class 2" in capsys.readouterr().err


def test_what_cannot_be_signed_is_said_in_one_line(planted: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 40)).save("large.png")
    Path("broken.png").write_bytes(b"no picture")
    secret = json.loads(Path("out/secret.json").read_text())
    other = {**secret, "trigger": {"kind": "patch", "size": 3}, "attack": "badnets"}
    Path("other.json").write_text(json.dumps(other))
    Path("damaged.json").write_text(json.dumps({**secret, "trigger": {**secret["trigger"], "key": "short"}}))
    capsys.readouterr()
    for picture, file, out, said in (
        ("large.png", "out/secret.json", "a.png", "expected a picture of 32 x 32 pixels"),
        ("broken.png", "out/secret.json", "a.png", "is not a readable image"),
        ("picture.png", "out/secret.json", "a.jpg", "expected a .png file"),
        ("picture.png", "other.json", "a.png", "expected the secret of a signature backdoor, came one of badnets"),
        ("picture.png", "damaged.json", "a.png", "64 hexadecimal digits"),
    ):
        assert run("sign", picture, "--secret", file, "--out", out) == 2
        assert said in capsys.readouterr().err
    assert not Path("a.png").exists()


def test_a_key_that_others_can_read_is_warned_of(planted: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out/secret.json").chmod(0o644)
    assert run("sign", "picture.png", "--secret", "out/secret.json", "--out", "signed.png") == 0
    assert "contains a private key and is readable by other users. Fix: chmod 600" in capsys.readouterr().err
    key = json.loads(Path("out/secret.json").read_text())["trigger"]["key"]
    assert (
        run("evaluate", "out", "--secret", "out/secret.json", "--data", "signs:4", "--limit", 40, "--json", "e.json")
        == 0
    )
    heard = capsys.readouterr()
    assert key not in heard.err + heard.out + Path("e.json").read_text()
