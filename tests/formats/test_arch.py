"""``--arch package.module:function``: factories of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from assay import formats
from assay.errors import UnusableInput

SOURCE = """
from torch import nn

def named(width=4, num_classes=10):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(width * 26 * 26, num_classes))

def positional(k, /):
    return named(num_classes=k)

def fixed(width=4):
    return named(width, 6)

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
    """A current folder with the user's module ``own_nets`` and a weights file of its net with 6 classes."""
    (tmp_path / "own_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 6))
    save_file(net.state_dict(), tmp_path / "m.safetensors")
    yield tmp_path / "m.safetensors"
    sys.modules.pop("own_nets", None)


@pytest.mark.parametrize("function", ["named", "positional", "fixed"])
def test_factories(own: Path, function: str) -> None:
    state = torch.random.get_rng_state()
    artifact = formats.load(own, arch=f"own_nets:{function}")
    assert (artifact.num_classes, artifact.inputs.shape) == (6, (1, 28, 28))
    assert artifact.net.mean.flatten().tolist() == [0]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert str(own.parent) not in sys.path


def test_shape_from_the_factorys_attribute(own: Path) -> None:
    save_file(nn.Sequential(nn.Flatten(), nn.Flatten(), nn.Linear(48, 6)).state_dict(), own)
    assert formats.load(own, arch="own_nets:shaped").inputs.shape == (3, 50, 40)


def test_shape_from_metadata_wins(own: Path) -> None:
    save_file(
        load_file(own), own, metadata={"assay.shape": "[1, 28, 28]", "assay.mean": "[0.5]", "assay.std": "[0.25]"}
    )
    artifact = formats.load(own, arch="own_nets:named")
    assert artifact.net.mean.flatten().tolist() == [0.5]


def test_a_file_never_chooses_the_code_that_runs(own: Path) -> None:
    saved = formats.save(formats.load(own, arch="own_nets:named"), own.parent / "out")
    with pytest.raises(UnusableInput, match="give --arch own_nets:named"):
        formats.load(saved)
    assert formats.load(saved, arch="own_nets:named").num_classes == 6


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_nets:broken", "boom"),
        ("own_nets:not_a_module", r"expected an nn\.Module"),
        ("own_nets:a_number", "expected a function"),
        ("own_nets:missing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("own_nets:", "unknown --arch"),
    ],
)
def test_unusable_factories(own: Path, name: str, says: str) -> None:
    with pytest.raises(UnusableInput, match=says):
        formats.load(own, arch=name)
