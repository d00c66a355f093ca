"""A net with random weights, as an artifact to train from scratch."""

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
    """The pictures that the architecture takes, or of the given ``shape`` (C, H, W); ``arch`` as for ``--arch``.

    Raises UnusableInput where it is unknown.
    """
    factory = factory_of(arch)
    known = factory.shape if shape is None else as_shape(shape, "--shape")
    return ImageSpec(known or _shape(factory(2))[0])


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
    """An untrained net of the architecture, its normalization in front; the same seed gives the same weights.

    ``shape`` (C, H, W), ``mean`` and ``std`` stand in for the architecture's own.
    """
    factory = factory_of(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = factory(num_classes)
    own = factory.normalization if mean is None and std is None else None
    known = factory.shape if shape is None else as_shape(shape, "--shape")
    size, notes = (known, ()) if known is not None else _shape(net)
    artifact = from_module(
        net,
        shape=size,
        num_classes=num_classes,
        mean=mean if own is None else own.mean,
        std=std if own is None else own.std,
        class_names=class_names,
        name=arch,
    )
    return replace(artifact, arch=arch, notes=(*notes, *artifact.notes))


def _shape(net: nn.Module) -> tuple[Shape, tuple[str, ...]]:
    """(C, H, W) as the net states it, else guessed, and what is said about the guess."""
    stated = stated_shape(net)
    return guess_shape(net) if stated is None else (stated, ())
