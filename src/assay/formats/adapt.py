"""Adaptation of given models to assay's convention: float32, on the CPU, one tensor of logits as output."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import Modality
from assay.formats.outputs import choose_logits, describe_output, flatten_logits, named_parts
from assay.formats.shape import Shape
from assay.nn.saving import SavedWrapper

LOGITS = "logits"


class LogitsOnly(nn.Module):
    """A model with several outputs, reduced to its logits (N, K)."""

    def __init__(self, net: nn.Module, key: str) -> None:
        super().__init__()
        self.net = net
        self.key = key  # as in ``named_parts``

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch."""
        logits = named_parts(self.net(x))[self.key]
        assert isinstance(logits, Tensor)
        return flatten_logits(logits)

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


def select_logits(module: nn.Module, shape: Shape, wanted: str | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a module with a tensor of logits as output, the given one if possible, and the unused outputs.

    Args:
        module: The model.
        shape: (C, H, W) of its images.
        wanted: Name of the output with the logits, or its position in a tuple; None: the only one of shape (N, K).

    Raises:
        UnusableInput: No output can be the logits, or several can. The message lists all outputs.
    """
    output = output_of(module, torch.zeros(2, *shape))
    if isinstance(output, Tensor) and wanted is None:
        return module, ()  # ``describe`` checks its shape
    parts = named_parts(output)
    if wanted is None and _is_model_output(output) and isinstance(parts.get(LOGITS), Tensor):
        wanted = LOGITS
    chosen = choose_logits([describe_output(name, part, 2) for name, part in parts.items()], wanted)
    if isinstance(output, Tensor):
        return module, ()
    return LogitsOnly(module, chosen.name), tuple(name for name in parts if name != chosen.name)


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


def _is_model_output(output: object) -> bool:
    """Return whether an output is transformers' ``ModelOutput``, whose class documents its field ``logits``."""
    transformers = sys.modules.get("transformers.utils")  # such an output cannot exist before this import
    return transformers is not None and isinstance(output, transformers.ModelOutput)
