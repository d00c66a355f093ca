"""Nets as people have them -> nets as assay takes them: float32, on the CPU, answering with one tensor of logits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.formats.shape import Shape

LOGITS = "logits"


class Picked(nn.Module):
    """A net that answers with several things, as one that answers with its logits (N, K)."""

    def __init__(self, net: nn.Module, key: str | int) -> None:
        super().__init__()
        self.net = net
        self.key = key

    def forward(self, x: Tensor) -> Tensor:
        answer = self.net(x)
        by_name = isinstance(self.key, str) and not isinstance(answer, Mapping)
        return getattr(answer, str(self.key)) if by_name else answer[self.key]


def on_cpu(net: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """``net`` where it is float32 on the CPU already, else a copy that is, and a sentence that says so."""
    kinds = {parameter.dtype for parameter in net.parameters() if parameter.is_floating_point()}
    places = {tensor.device.type for tensor in (*net.parameters(), *net.buffers())}
    if kinds <= {torch.float32} and places <= {"cpu"}:
        return net, ()
    if "meta" in places:
        raise UnusableInput("expected a net with weights, some of its tensors are on the device meta: load them first")
    try:
        copied = copy.deepcopy(net).to(device="cpu", dtype=torch.float32)
    except Exception as error:  # whatever the net's own code raises
        raise UnusableInput(
            f"expected a net in float32 on the CPU, and cannot copy this one: {first_line(error)}; "
            "give it as net.float().cpu()"
        ) from None
    came = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    place = " and ".join(sorted(places))
    return copied, (f"a copy of the net in float32 on the CPU is audited; its weights are {came} on {place}",)


def with_logits(net: nn.Module, shape: Shape) -> nn.Module:
    """``net`` where it answers with a tensor, else around it what takes the logits out of its answer."""
    key = _logits_key(answer_to(net, torch.zeros(2, *shape)))
    return net if key is None else Picked(net, key)


def answer_to(net: nn.Module, x: Tensor) -> Any:
    """What the net says of ``x``, run as for inference; its modules' modes are left as they were."""
    modes = [(module, module.training) for module in net.modules()]
    weight = next(net.parameters(), torch.zeros(()))
    try:
        net.eval()
        with torch.no_grad():
            return net(x.to(weight.device))
    except Exception as error:  # whatever the net's own code raises
        kind = "a picture of shape" if x.is_floating_point() else "a text of so many tokens:"
        raise UnusableInput(f"the net does not run on {kind} {tuple(x.shape[1:])}: {first_line(error)}") from None
    finally:
        for module, training in modes:
            module.training = training


def _logits_key(answer: object) -> str | int | None:
    """Where the logits are in a net's answer to two pictures; None where the answer is a tensor itself."""
    if isinstance(answer, Tensor):
        return None
    parts: Mapping[Any, object] = {}
    if isinstance(answer, Mapping):
        parts = answer
    elif isinstance(answer, tuple | list):
        parts = dict(enumerate(answer))
    if isinstance(parts.get(LOGITS, getattr(answer, LOGITS, None)), Tensor):
        return LOGITS
    fitting = [key for key, part in parts.items() if isinstance(part, Tensor) and part.ndim == 2 and len(part) == 2]
    if len(fitting) == 1:
        return fitting[0]  # type: ignore[no-any-return]
    came = ", ".join(f"{key}: {_shown(part)}" for key, part in parts.items())
    raise UnusableInput(
        f"expected logits of shape (N, classes), alone or by the name logits; the net answers with a "
        f"{type(answer).__name__}{f' of {came}' if came else ''}: give a net that returns its logits only"
    )


def _shown(part: object) -> str:
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__
