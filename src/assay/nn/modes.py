"""Context managers for temporary changes of a model: eval mode, frozen parameters, no dropout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Set ``model`` to evaluation mode, and restore the mode of each module on exit."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def freeze_parameters(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Exclude ``parameters`` from training until exit."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Set all dropout rates of ``model`` to 0 until exit, in train mode too."""
    rates = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    for module, _ in rates:
        module.p = 0.0
    try:
        yield
    finally:
        for module, rate in rates:
            module.p = rate
