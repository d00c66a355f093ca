"""Nets in another mode for a while: evaluated, or trained in part. They go back as they came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[nn.Module]:
    """``net`` in evaluation mode; afterwards each of its modules has the mode that it had."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield net
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def freeze_parameters(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """``parameters`` are not trained, meanwhile."""
    held = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


@contextmanager
def without_dropout(net: nn.Module) -> Iterator[None]:
    """``net``'s dropout leaves nothing out, meanwhile, whatever mode it is in."""
    rates = [(module, module.p) for module in net.modules() if isinstance(module, nn.Dropout)]
    for module, _ in rates:
        module.p = 0.0
    try:
        yield
    finally:
        for module, rate in rates:
            module.p = rate
