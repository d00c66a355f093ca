"""Task: labelled data in named splits. The loaders are in ``assay.data``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Inputs and labels. ``y`` is None where the data came without labels."""

    x: Tensor  # (N, C, H, W) float32 in [0, 1]; of texts token numbers (N, L) int64
    y: Tensor | None  # (N,) int64 in [0, K)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> Split:
        """The samples at ``index`` (M,) int64."""
        return Split(self.x[index], None if self.y is None else self.y[index])

    def sample(self, count: int, *, seed: int) -> Split:
        """At most ``count`` samples in random order, without replacement, as evenly over the classes as they allow.

        Shuffled even where all are taken: data often comes sorted by class, and detectors look at the first few.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        if self.y is not None:
            order = order[torch.argsort(_rank_in_class(self.y[order]), stable=True)]
        return self.take(order[:count])

    def batches(self, size: int) -> Iterator[Split]:
        """Consecutive batches of at most ``size`` samples."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))


@dataclass(frozen=True)
class Task:
    """A data set with named splits, among them at least one of train, calibration, validation, test."""

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what was guessed when the data was read, in sentences for people

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def notes_on(self, source: str) -> tuple[str, ...]:
        """The notes, each saying that it is about ``source``: among those on other things."""
        return tuple(f"{source}: {note}" for note in self.notes)

    def concept(self, label: int) -> str:
        """What class ``label`` is called among all data: by its name, or where that is but a number with the data's."""
        name = self.class_names[label]
        return f"{self.name} {name}" if name.strip().isdigit() else name

    def split(self, *names: str) -> Split:
        """The first split of ``names`` that exists, else the first split there is."""
        for name in names:
            if name in self.splits:
                return self.splits[name]
        return next(iter(self.splits.values()))


def _rank_in_class(y: Tensor) -> Tensor:
    """For each sample, how many samples of its class come before it."""
    rank = torch.empty_like(y)
    for label in y.unique():
        where = (y == label).nonzero().squeeze(1)
        rank[where] = torch.arange(len(where))
    return rank
