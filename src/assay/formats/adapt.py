"""Adaptation of given models to assay's convention: float32, on the CPU, one tensor of logits as output."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import Modality
from assay.formats.shape import Shape
from assay.nn.saving import SavedWrapper

LOGITS = "logits"


class LogitsOnly(nn.Module):
    """A model with several outputs, reduced to its logits (N, K)."""

    def __init__(self, net: nn.Module, key: str | int) -> None:
        super().__init__()
        self.net = net
        self.key = key

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch."""
        output = self.net(x)
        by_name = isinstance(self.key, str) and not isinstance(output, Mapping)
        return getattr(output, str(self.key)) if by_name else output[self.key]

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        """Return the model alone: the next loading selects the logits again."""
        return SavedWrapper(self.net)


def to_cpu(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a model in float32 on the CPU, and a note if it is a copy.

    Raises:
        UnusableInput: The model has no weights in memory, or cannot be copied.
    """
    dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    devices = {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}
    if dtypes <= {torch.float32} and devices <= {"cpu"}:
        return module, ()
    if "meta" in devices:
        raise UnusableInput("expected a model with weights, got tensors on the device meta. Fix: load them first.")
    try:
        copied = copy.deepcopy(module).to(device="cpu", dtype=torch.float32)
    except Exception as error:  # the model's own code can raise anything
        raise UnusableInput(
            f"expected a model in float32 on the CPU, and cannot copy this one: {first_line(error)}. "
            "Fix: pass model.float().cpu()."
        ) from None
    found = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    place = " and ".join(sorted(devices))
    return copied, (f"a copy of the model in float32 on the CPU is audited; its weights are {found} on {place}",)


def select_logits(module: nn.Module, shape: Shape) -> nn.Module:
    """Return a module with a tensor of logits as output, the given one if possible.

    Args:
        module: The model.
        shape: (C, H, W) of its images.
    """
    key = _logits_key(output_of(module, torch.zeros(2, *shape)))
    return module if key is None else LogitsOnly(module, key)


def output_of(module: nn.Module, x: Tensor) -> Any:
    """Return the output for a batch in eval mode without gradients; the modes of all submodules stay as they are.

    Args:
        module: The model.
        x: Inputs (N, ...), on any device.

    Raises:
        UnusableInput: The model fails on these inputs.
    """
    modes = [(part, part.training) for part in module.modules()]
    weight = next(module.parameters(), torch.zeros(()))
    try:
        module.eval()
        with torch.no_grad():
            return module(x.to(weight.device))
    except Exception as error:  # the model's own code can raise anything
        kind = "an image of shape" if Modality.of(x) is Modality.IMAGE else "a text with this number of tokens:"
        raise UnusableInput(f"the model does not run on {kind} {tuple(x.shape[1:])}: {first_line(error)}") from None
    finally:
        for part, training in modes:
            part.training = training


def _logits_key(output: object) -> str | int | None:
    """Return the key of the logits in the output for two images; None if the output is a tensor itself."""
    if isinstance(output, Tensor):
        return None
    parts: Mapping[Any, object] = {}
    if isinstance(output, Mapping):
        parts = output
    elif isinstance(output, tuple | list):
        parts = dict(enumerate(output))
    if isinstance(parts.get(LOGITS, getattr(output, LOGITS, None)), Tensor):
        return LOGITS
    fitting = [key for key, part in parts.items() if isinstance(part, Tensor) and part.ndim == 2 and len(part) == 2]
    if len(fitting) == 1:
        return fitting[0]  # type: ignore[no-any-return]
    kinds = {key: tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for key, part in parts.items()}
    found = ", ".join(f"{key}: {kind}" for key, kind in kinds.items())
    raise UnusableInput(
        f"expected logits of shape (N, classes), alone or by the name logits; the model outputs a "
        f"{type(output).__name__}{f' of {found}' if found else ''}. Fix: give a model that returns its logits only."
    )
