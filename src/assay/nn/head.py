"""Access to the last linear layer, from features to logits."""

from __future__ import annotations

import torch
from torch import nn

from assay.core.errors import UnusableInput


def last_linear(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return name and module of the last linear layer."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise UnusableInput(f"expected a model that ends in a linear layer, got a {type(model).__name__} without one")
    return found[-1]


def replace_head(model: nn.Module, num_classes: int, *, seed: int) -> nn.Linear:
    """Replace the last linear layer of ``model``, in place.

    Args:
        model: Classifier.
        num_classes: Outputs of the new layer.
        seed: Seed of its random weights.

    Returns:
        The new layer.
    """
    name, old = last_linear(model)
    head = random_linear(old.in_features, num_classes, seed=seed).to(old.weight)
    set_submodule(model, name, head)
    return head


def random_linear(width: int, num_classes: int, *, seed: int) -> nn.Linear:
    """Return a linear layer with random weights.

    Args:
        width: Number of inputs.
        num_classes: Number of outputs.
        seed: The same seed gives the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(width, num_classes)


def set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule ``name`` of ``model``, in place.

    Args:
        model: Module to change.
        name: Dotted name of the submodule.
        module: New submodule.

    Raises:
        UnusableInput: ``name`` is empty: ``model`` itself cannot be replaced in place.
    """
    if not name:
        raise UnusableInput("expected a model that ends in a linear layer, got a single linear layer")
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
