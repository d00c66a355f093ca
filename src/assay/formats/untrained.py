"""Models with random weights, as artifacts for training from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from assay.core.model import Artifact, ImageSpec
from assay.formats.arch import factory_of, guess_shape, stated_shape
from assay.formats.shape import Shape, as_shape
from assay.formats.torch_module import from_module


def inputs_of(arch: str, *, shape: Sequence[int] | None = None) -> ImageSpec:
    """Return the input specification of an architecture.

    Args:
        arch: Name of an architecture, or ``package.module:function``.
        shape: (C, H, W) in place of the architecture's own.

    Raises:
        UnusableInput: The architecture is unknown.
    """
    factory = factory_of(arch)
    known = factory.shape if shape is None else as_shape(shape, "shape")
    return ImageSpec(known or _shape_of(factory(2))[0])


def untrained_model(
    arch: str,
    num_classes: int,
    *,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Artifact:
    """Return an untrained model with its normalization in front. The same seed gives the same weights.

    Args:
        arch: Name of an architecture, or ``package.module:function``.
        num_classes: Number of classes.
        shape: (C, H, W) in place of the architecture's own.
        mean: Mean per channel in place of the architecture's own.
        std: Standard deviation per channel in place of the architecture's own.
        class_names: Names of the classes.
        seed: Seed of the weights.
    """
    factory = factory_of(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = factory(num_classes)
    own = factory.normalization if mean is None and std is None else None
    known = factory.shape if shape is None else as_shape(shape, "shape")
    size, notes = (known, ()) if known is not None else _shape_of(module)
    artifact = from_module(
        module,
        shape=size,
        num_classes=num_classes,
        mean=mean if own is None else own.mean,
        std=std if own is None else own.std,
        class_names=class_names,
        name=arch,
    )
    return replace(artifact, arch=arch, notes=(*notes, *artifact.notes))


def _shape_of(model: nn.Module) -> tuple[Shape, tuple[str, ...]]:
    """Return the stated shape (C, H, W) of a model, else a guess with a note."""
    stated = stated_shape(model)
    return guess_shape(model) if stated is None else (stated, ())
