"""Names that share memory in a model: files hold such a tensor once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from assay import formats
from assay.core.errors import UnusableInput
from assay.formats.state_dict import complete_shared


class Tied(nn.Module):
    """A model whose last layer has two names."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.linear = nn.Linear(48, num_classes)
        self.classifier = self.linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.linear(self.flat(x))


@pytest.fixture
def arch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tied_net.py").write_text(
        f"from {__name__} import Tied\n" if "." in __name__ else "from test_shared_tensors import Tied\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return "tied_net:Tied"


@pytest.mark.parametrize("stored", ["linear", "classifier"])
def test_one_stored_name_is_enough(tmp_path: Path, arch: str, stored: str) -> None:
    model = Tied(5)
    tensors = {f"{stored}.{name}": tensor.clone() for name, tensor in model.linear.state_dict().items()}
    save_file(tensors, tmp_path / "m.safetensors")
    found = formats.load(tmp_path / "m.safetensors", arch=arch, shape=(3, 4, 4), mean=[0], std=[1])
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(found.module(x), model(x))
    assert found.num_classes == 5


def test_two_different_stored_tensors_are_refused() -> None:
    model = Tied()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert complete_shared(model, tensors, "m").keys() == tensors.keys()
    tensors["classifier.bias"] += 1
    with pytest.raises(UnusableInput, match=r"linear\.bias and classifier\.bias are one tensor"):
        complete_shared(model, tensors, "m")
