"""Split and Task: labelled data. The loaders are in ``assay.data``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

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

    def digest(self) -> str:
        """Return the sha256 over types, shapes and bytes of the samples and their labels."""
        sha = hashlib.sha256()
        for tensor in (self.x, self.y):
            if tensor is not None:
                array = tensor.detach().cpu().contiguous().numpy()
                sha.update(f"{array.dtype} {array.shape}".encode())
                sha.update(array.tobytes())
        return sha.hexdigest()

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
class Numbering:
    """Another possible numbering of a data set's classes."""

    name: str  # in words: "in alphabetical order"
    labels: Tensor  # (K,) int64: the label in this numbering for each label of the task; -1: none


@dataclass(frozen=True)
class DataSummary:
    """Choices and counts on reading a data set, in words for the input check."""

    kind: str = ""  # "folder of images", ...
    totals: Mapping[str, int] = field(default_factory=dict)  # samples of each split in the source, before any limit
    drawn_from: str = ""  # split of the source that holds the calibration samples
    labels: str = ""  # source of the labels: "folder names"; empty: no labels
    numbering: str = ""  # "by the model's class names", ...
    alternatives: tuple[Numbering, ...] = ()  # if ``numbering`` is a guess
    unconfirmed: bool = False  # the data have fewer classes than the model, and the numbering is a mere guess
    left_out: tuple[str, ...] = ()  # parts of the source without use, with counts


@dataclass(frozen=True)
class Task:
    """A data set with named splits, at least one of them train, calibration, validation or test."""

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # guesses on reading the data, in sentences for people
    summary: DataSummary = field(default_factory=DataSummary)

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
