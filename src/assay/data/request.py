"""What the readers take and give."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec, InputSpec, Modality

MAX_SPLIT_BYTES = 2**32
BYTES = {Modality.IMAGE: 4, Modality.TEXT: 8}
"""Of each number of a sample."""

SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "validation"}
NO_LABELS = "--no-labels (in Python: labels=False)"
"""What to say where names or folders are no labels."""

KNOWN_SPLITS = ("train", "calibration", "validation", "test")


@dataclass(frozen=True)
class Request:
    """How the samples of a split are wanted."""

    spec: InputSpec
    limit: int | None  # samples
    seed: int
    num_classes: int | None = None  # the model's
    labels: bool = True  # False: names and folders are no labels

    @property
    def image_spec(self) -> ImageSpec:
        """How pictures are wanted; raises UnusableInput where texts are."""
        if not isinstance(self.spec, ImageSpec):
            raise UnusableInput("expected texts, as the model takes them; the data has pictures")
        return self.spec

    def of_split(self, name: str, names: Collection[str]) -> Request:
        """The request for one of the splits ``names``: twice the limit where calibration will be carved out of it."""
        carved = carved_from([split_name(each) for each in names])
        doubled = self.limit is not None and split_name(name) == carved
        return replace(self, limit=2 * self.limit) if doubled and self.limit else self

    def choose(self, count: int, labels: Tensor | None) -> Tensor:
        """Which of ``count`` samples of a split are read: their indices, ascending (M,) int64.

        Drawn evenly over the classes.
        """
        wanted = count if self.limit is None else min(count, self.limit)
        if BYTES[self.spec.modality] * math.prod(self.spec.shape) * wanted > MAX_SPLIT_BYTES:
            size = "x".join(map(str, self.spec.shape))
            raise UnusableInput(
                f"{wanted} {self.spec.modality}s of {size} take more than {MAX_SPLIT_BYTES >> 30} GiB; "
                "set a limit of samples"
            )
        return Split(torch.arange(count), labels).sample(wanted, seed=self.seed).x.sort().values


@dataclass(frozen=True)
class Source:
    """What a reader found: pictures as wanted, labels as they stand in the data."""

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...] | None = None  # None: the data does not say
    named_by_folder: bool = False  # labels only count the folders there are; the model may number them differently
    notes: tuple[str, ...] = ()  # what the reader guessed, in sentences for people


def carved_from(names: Sequence[str]) -> str | None:
    """Which of the splits ``names`` the calibration split is carved out of; None where there is one already."""
    if "calibration" in names:
        return None
    return next((name for name in ("train", "validation") if name in names), names[0])


def split_name(text: str) -> str:
    """A split's usual name."""
    return SPLIT_NAMES.get(text.lower(), text.lower())
