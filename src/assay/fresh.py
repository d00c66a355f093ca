"""A net with random weights, as an artifact to train from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from assay.artifact import Artifact, ImageSpec
from assay.formats.arch import factory_of, guess_shape
from assay.formats.module import from_module


def inputs_of(arch: str) -> ImageSpec:
    """The pictures that the architecture takes; ``arch`` as for ``--arch``. Raises UnusableInput where unknown."""
    factory = factory_of(arch)
    return ImageSpec(factory.shape or guess_shape(factory(2)))


def fresh(arch: str, num_classes: int, *, class_names: Sequence[str] | None = None, seed: int = 0) -> Artifact:
    """An untrained net of the architecture, its normalization in front; the same seed gives the same weights."""
    factory = factory_of(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = factory(num_classes)
    normalization = factory.normalization
    artifact = from_module(
        net,
        shape=factory.shape or guess_shape(net),
        num_classes=num_classes,
        mean=None if normalization is None else normalization.mean,
        std=None if normalization is None else normalization.std,
        class_names=class_names,
        name=arch,
    )
    return replace(artifact, arch=arch)
