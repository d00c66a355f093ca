"""Models and data of the commands: options of models, and one line for each unusable input."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.commands import BRIEF, DATA, Run, assert_one_line, write_weights

BAD_MODELS = {
    "missing": ("nothing.safetensors", "no such model"),
    "pickle": ("weights.pt", "never opened"),
    "truncated": ("cut.safetensors", "cut.safetensors"),
    "empty folder": ("empty", "an empty folder"),
    "bare": ("bare.safetensors", "expected an architecture for a bare safetensors file"),
    "text": ("notes.txt", ".safetensors"),
}


@pytest.fixture
def bad_models(planted: Path, tmp_path: Path) -> Path:
    whole = (planted / "model.safetensors").read_bytes()
    (tmp_path / "weights.pt").write_bytes(b"\x80\x04.")
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    write_weights(tmp_path / "bare.safetensors", planted)
    return tmp_path


@pytest.mark.parametrize(("name", "expected"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_unusable_model_gives_one_line(run: Run, bad_models: Path, name: str, expected: str) -> None:
    result = run("audit", name, "--data", "signs:3", "--json", "-")
    assert (result.code, result.out) == (2, "")
    assert expected in assert_one_line(result.err)
    assert not (bad_models / "assay-report").exists()


def test_wrong_architecture_names_the_mismatch(run: Run, bad_models: Path) -> None:
    result = run("audit", "bare.safetensors", "--arch", "resnet20-cifar", "--data", "signs:3")
    assert result.code == 2
    assert "layer" in assert_one_line(result.err)
    result = run("audit", "bare.safetensors", "--arch", "resnet9000", "--data", "signs:3")
    assert result.code == 2
    assert "known: resnet8-cifar" in assert_one_line(result.err)


def write_bad_data(folder: Path) -> dict[str, tuple[str, str]]:
    """Write unusable data. Return the value of --data and a part of the message by name of the case."""
    x = np.zeros((6, 32, 32, 3), np.uint8)
    np.savez(folder / "one.npz", x=x, y=np.zeros(6, np.int64))
    np.savez(folder / "many.npz", x=x, y=np.arange(6))
    (folder / "none").mkdir()
    return {
        "missing": ("nowhere", "no such data"),
        "other classes": ("signs:10", "3 classes"),
        "labels out of range": ("many.npz", "below 3"),
        "one class": ("one.npz", "two classes"),
        "empty folder": ("none", "none"),
        "no number": ("signs:x", "signs:100"),
    }


@pytest.mark.parametrize(
    "case", ["missing", "other classes", "labels out of range", "one class", "empty folder", "no number"]
)
def test_unusable_data_gives_one_line(run: Run, planted: Path, tmp_path: Path, case: str) -> None:
    source, expected = write_bad_data(tmp_path)[case]
    model = write_weights(tmp_path / "bare.safetensors", planted)
    result = run("audit", model, "--arch", "resnet8-cifar", "--data", source)
    assert result.code == 2
    assert expected in assert_one_line(result.err)


OWN_ARCHITECTURE = """
from torch import nn

def small_model(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


def test_every_command_accepts_shape_and_normalization(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text(OWN_ARCHITECTURE)
    arch = ("--arch", "own_net:small_model")
    options = ("--shape", "3,40,40", "--mean", "0.5", "--std", "0.25")
    try:
        new = ("plant", "badnets", "--model", "new:own_net:small_model", "--out", "a", "-o", "target=1", *DATA, *BRIEF)
        result = run(*new)
        assert "a guess: 3 x 32 x 32" in result.err
        assert run(*new, *options).code == 0
        assert saved_metadata("a") == ("[3, 40, 40]", "[0.5]", "[0.25]")
        bare = tmp_path / "bare.safetensors"
        save_file(load_file("a/model.safetensors"), bare)
        result = run("stage", "bf16", bare, *arch, *options, "--out", "b")
        assert result.code == 0, result.err
        assert saved_metadata("b") == ("[3, 40, 40]", "[0.5]", "[0.25]")
        result = run("evaluate", bare, *arch, *options, "--secret", "a/secret.json", *DATA)
        assert result.code == 0, result.err
        assert "guess" not in result.err
        result = run("calibrate", bare, *arch, *options, "--data", "signs:3", "--out", "null.json")
        assert "at least 2" in assert_one_line(result.err)
    finally:
        sys.modules.pop("own_net", None)


def saved_metadata(folder: str) -> tuple[str, ...]:
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        return tuple(file.metadata()[f"assay.{key}"] for key in ("shape", "mean", "std"))
