"""The last linear layer, which makes logits of features."""

from __future__ import annotations

import torch
from torch import nn

from assay.core.errors import UnusableInput


def last_linear(net: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last linear layer, which gives the logits."""
    found = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise UnusableInput(f"expected a net that ends in a linear layer; {type(net).__name__} has none")
    return found[-1]


def replace_head(net: nn.Module, num_classes: int, *, seed: int) -> nn.Linear:
    """Put a fresh last linear layer for ``num_classes`` into ``net`` in place, and return it."""
    name, old = last_linear(net)
    head = random_linear(old.in_features, num_classes, seed=seed).to(old.weight)
    set_submodule(net, name, head)
    return head


def random_linear(width: int, num_classes: int, *, seed: int) -> nn.Linear:
    """A linear layer with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(width, num_classes)


def set_submodule(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` into ``net`` at ``name``, in place of what is there."""
    if not name:
        raise UnusableInput("expected a net that ends in a linear layer; this one is nothing but a linear layer")
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, module)
