"""Split and Task: labelled data. The loaders are in ``assay.data``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.core.model import Modality


@dataclass(frozen=True)
class Split:
    """Inputs and their labels. ``y`` is None for unlabelled data."""

    x: Tensor  # (N, C, H, W) float32 in [0, 1], or token numbers (N, L) int64
    y: Tensor | None  # (N,) int64 in [0, K)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def modality(self) -> Modality:
        """Kind of the inputs."""
        return Modality.of(self.x)

    def take(self, index: Tensor) -> Split:
        """Return the samples at ``index`` (M,) int64."""
        return Split(self.x[index], None if self.y is None else self.y[index])

    def sample(self, count: int, *, seed: int) -> Split:
        """Return at most ``count`` samples in random order, without replacement, balanced over the classes.

        The order is random even if all samples are taken: data is often sorted by class, and detectors use the first
        samples.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        if self.y is not None:
            order = order[torch.argsort(rank_in_class(self.y[order]), stable=True)]
        return self.take(order[:count])

    def batches(self, size: int) -> Iterator[Split]:
        """Yield consecutive batches of at most ``size`` samples."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))


@dataclass(frozen=True)
class Task:
    """A data set with named splits, at least one of them train, calibration, validation or test."""

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # guesses on reading the data, in sentences for people

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def notes_on(self, source: str) -> tuple[str, ...]:
        """Return the notes, each with ``source`` in front."""
        return tuple(f"{source}: {note}" for note in self.notes)

    def concept(self, label: int) -> str:
        """Return the name of a class; a number gets the data set's name in front."""
        name = self.class_names[label]
        return f"{self.name} {name}" if name.strip().isdigit() else name

    def split(self, *names: str) -> Split:
        """Return the first existing split of ``names``, else the first split of the task."""
        for name in names:
            if name in self.splits:
                return self.splits[name]
        return next(iter(self.splits.values()))


def rank_in_class(y: Tensor) -> Tensor:
    """Return, for each label in ``y`` (N,), the number of earlier samples of the same class (N,)."""
    rank = torch.empty_like(y)
    for label in y.unique():
        positions = (y == label).nonzero().squeeze(1)
        rank[positions] = torch.arange(len(positions))
    return rank
