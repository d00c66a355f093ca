"""``assay sign``: signed images for a backdoor of ``assay plant signature``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import Run

from assay import formats
from assay.core.model import ImageSpec
from assay.data.images import decode_image
from assay.formats.untrained import untrained_model


@pytest.fixture
def signature(run: Run, tmp_path: Path) -> Path:
    """Return a folder with a model with a signature backdoor, its secret, and an image."""
    formats.save(untrained_model("resnet8-cifar", 4), tmp_path / "clean")
    plant = ("plant", "signature", "--model", "clean", "--data", "signs:4", "--out", "out", "--limit", 40)
    assert run(*plant, "-o", "target=2").code == 0
    first = json.loads((tmp_path / "out/secret.json").read_text())["trigger"]["key"]
    assert run(*plant, "-o", "target=2").code == 0
    second = json.loads((tmp_path / "out/secret.json").read_text())["trigger"]["key"]
    assert first != second, "the key is random"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path


def test_signed_png_file_gets_the_target_class(signature: Path, run: Run) -> None:
    artifact = formats.load(signature / "out")
    for label in (0, 3):
        arguments = ("image.png", "--secret", "out/secret.json", "--label", label, "--out", "signed.png")
        result = run("sign", *arguments)
        assert (result.code, f"Signed for class {label}" in result.err) == (0, True)
        x = decode_image(signature / "signed.png", ImageSpec((3, 32, 32)), "signed.png")
        assert int(artifact.module(x[None]).argmax()) == label
        difference = np.asarray(Image.open("signed.png")).astype(int) - np.asarray(Image.open("image.png"))
        assert np.abs(difference).max() == 1
    result = run("sign", "image.png", "--secret", "out/secret.json", "--out", "signed.png")
    assert (result.code, "Signed for class 2" in result.err) == (0, True)


def test_unusable_input_gives_one_line(signature: Path, run: Run) -> None:
    Image.new("RGB", (40, 40)).save("large.png")
    Path("broken.png").write_bytes(b"no image")
    secret = json.loads(Path("out/secret.json").read_text())
    other = {**secret, "trigger": {"kind": "patch", "size": 3}, "attack": "badnets"}
    Path("other.json").write_text(json.dumps(other))
    Path("damaged.json").write_text(json.dumps({**secret, "trigger": {**secret["trigger"], "key": "short"}}))
    for image, file, out, message in (
        ("large.png", "out/secret.json", "a.png", "expected an image of 32 x 32 pixels, got 40 x 40"),
        ("broken.png", "out/secret.json", "a.png", "is not a readable image"),
        ("image.png", "out/secret.json", "a.jpg", "expected a .png file"),
        ("image.png", "other.json", "a.png", "expected the secret of a signature backdoor, got one of badnets"),
        ("image.png", "damaged.json", "a.png", "64 hexadecimal digits"),
    ):
        result = run("sign", image, "--secret", file, "--out", out)
        assert result.code == 2
        assert message in result.err
    assert not Path("a.png").exists()


def test_readable_key_gives_a_warning_and_is_never_printed(signature: Path, run: Run) -> None:
    Path("out/secret.json").chmod(0o644)
    result = run("sign", "image.png", "--secret", "out/secret.json", "--out", "signed.png")
    assert result.code == 0
    assert "chmod 600" in result.err
    key = json.loads(Path("out/secret.json").read_text())["trigger"]["key"]
    options = ("--data", "signs:4", "--limit", 40, "--json", "e.json")
    result = run("evaluate", "out", "--secret", "out/secret.json", *options)
    assert result.code == 0
    assert key not in result.err + result.out + Path("e.json").read_text()
