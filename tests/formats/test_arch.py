"""Architectures ``package.module:function``: the user's own factories."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats.normalization import UNKNOWN_NORMALIZATION

SOURCE = """
from torch import nn

def named(width=4, num_classes=10):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(width * 26 * 26, num_classes))

def positional(k, /):
    return named(num_classes=k)

def fixed(width=4):
    return named(width, 6)

def any_size(num_classes=10):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

def shaped():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(3 * 16, 6))
shaped.input_shape = (3, 50, 40)

def broken(num_classes):
    raise RuntimeError("boom")

def not_a_module(num_classes):
    return 7

a_number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a weights file of 6 classes, below the current folder with the user's module ``own_nets``."""
    (tmp_path / "own_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 6))
    (tmp_path / "models").mkdir()
    save_file(model.state_dict(), tmp_path / "models/m.safetensors")
    yield tmp_path / "models/m.safetensors"
    sys.modules.pop("own_nets", None)


@pytest.mark.parametrize("function", ["named", "positional", "fixed"])
def test_factory_gets_the_number_of_classes_of_the_file(own: Path, function: str) -> None:
    state = torch.random.get_rng_state()
    artifact = formats.load(own, arch=f"own_nets:{function}")
    assert (artifact.num_classes, artifact.inputs.shape) == (6, (1, 28, 28))
    assert artifact.module.mean.flatten().tolist() == [0]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert str(own.parent) not in sys.path


def test_code_in_the_folder_of_the_model_is_refused(own: Path) -> None:
    beside = own.rename(own.parent.parent / "m.safetensors")
    with pytest.raises(UnusableInput, match="expected code of your own, got code in the model's folder"):
        formats.load(beside, arch="own_nets:named")
    assert "own_nets" not in sys.modules


def test_code_in_the_folder_of_the_model_is_used_from_the_path(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = own.rename(own.parent.parent / "m.safetensors")
    monkeypatch.syspath_prepend(str(beside.parent))
    assert formats.load(beside, arch="own_nets:named").num_classes == 6


def test_installed_packages_come_before_the_current_folder(own: Path) -> None:
    Path("scipy.py").write_text("raise SystemExit('run')")
    with pytest.raises(UnusableInput, match="scipy:f cannot be imported: AttributeError"):
        formats.load(own, arch="scipy:f")


def test_shape_comes_from_the_attribute_of_the_factory(own: Path) -> None:
    save_file(nn.Sequential(nn.Flatten(), nn.Flatten(), nn.Linear(48, 6)).state_dict(), own)
    assert formats.load(own, arch="own_nets:shaped").inputs.shape == (3, 50, 40)


@pytest.fixture
def any_size(own: Path) -> Path:
    """Return weights of a model for images of any size, in their own folder."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
    (own.parent / "weights").mkdir()
    save_file(model.state_dict(), own.parent / "weights" / "any.safetensors")
    return own.parent / "weights" / "any.safetensors"


def test_guessed_size_is_in_the_notes(own: Path, any_size: Path) -> None:
    artifact = formats.load(any_size, arch="own_nets:any_size")
    assert artifact.inputs.shape == (3, 32, 32)
    assert "a guess: 3 x 32 x 32" in artifact.notes[0]
    assert "give the shape" in artifact.notes[0]
    assert formats.load(own, arch="own_nets:named").notes == (UNKNOWN_NORMALIZATION,), "the model accepts no other size"


def test_missing_normalization_is_in_the_notes(own: Path) -> None:
    assert "give mean and std" in formats.load(own, arch="own_nets:named").notes[-1]
    assert formats.load(own, arch="own_nets:named", mean=[0.5], std=[0.5]).notes == ()


@pytest.mark.parametrize("shape", [(3, 224, 224), [3, 224, 224]])
def test_given_size_takes_precedence(any_size: Path, shape: Sequence[int]) -> None:
    artifact = formats.load(any_size, arch="own_nets:any_size", shape=shape)
    assert (artifact.inputs.shape, artifact.notes) == ((3, 224, 224), (UNKNOWN_NORMALIZATION,))
    saved = formats.save(artifact, any_size.parent / "out")
    assert formats.load(saved, arch="own_nets:any_size").inputs.shape == (3, 224, 224)
    assert formats.load(saved, arch="own_nets:any_size", shape=(3, 64, 64)).inputs.shape == (3, 64, 64)


def test_misfitting_size_is_refused(own: Path) -> None:
    with pytest.raises(UnusableInput, match="does not run on an image of shape"):
        formats.load(own, arch="own_nets:named", shape=(1, 32, 32))
    with pytest.raises(UnusableInput, match=r"shape: expected \(channels, height, width\)"):
        formats.load(own, arch="own_nets:named", shape=(28, 28))


SIDECARS = {
    "processor": ({"preprocessor_config.json": {"size": {"height": 96, "width": 64}}}, (3, 96, 64)),
    "timm": ({"config.json": {"architecture": "x", "pretrained_cfg": {"input_size": [3, 160, 160]}}}, (3, 160, 160)),
    "config": ({"config.json": {"image_size": 48}}, (3, 48, 48)),
    "both": ({"preprocessor_config.json": {"size": 96}, "config.json": {"image_size": 48}}, (3, 96, 96)),
}


@pytest.mark.parametrize(("files", "shape"), SIDECARS.values(), ids=SIDECARS)
def test_size_comes_from_a_sidecar_file(any_size: Path, files: dict[str, object], shape: tuple[int, int, int]) -> None:
    for name, content in files.items():
        (any_size.parent / name).write_text(json.dumps(content))
    artifact = formats.load(any_size, arch="own_nets:any_size")
    assert artifact.inputs.shape == shape
    assert f"from {next(iter(files))} next to the model" in artifact.notes[0]


@pytest.mark.parametrize("content", ["{", "[]", '{"lr": 0.1}', '{"image_size": "big"}', '{"input_size": [224]}'])
def test_sidecar_file_without_a_size_is_ignored(any_size: Path, content: str) -> None:
    (any_size.parent / "config.json").write_text(content)
    assert "a guess" in formats.load(any_size, arch="own_nets:any_size").notes[0]


def test_metadata_takes_precedence_over_a_guess(own: Path) -> None:
    save_file(
        load_file(own), own, metadata={"assay.shape": "[1, 28, 28]", "assay.mean": "[0.5]", "assay.std": "[0.25]"}
    )
    artifact = formats.load(own, arch="own_nets:named")
    assert artifact.module.mean.flatten().tolist() == [0.5]


def test_file_never_chooses_the_code(own: Path) -> None:
    saved = formats.save(formats.load(own, arch="own_nets:named"), own.parent / "out")
    with pytest.raises(UnusableInput, match="give the architecture own_nets:named"):
        formats.load(saved)
    assert formats.load(saved, arch="own_nets:named").num_classes == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_nets:broken", "boom"),
        ("own_nets:not_a_module", r"expected an nn\.Module"),
        ("own_nets:a_number", "expected a function"),
        ("own_nets:missing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("own_nets:", "unknown architecture"),
    ],
)
def test_unusable_factory_is_refused(own: Path, name: str, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        formats.load(own, arch=name)
