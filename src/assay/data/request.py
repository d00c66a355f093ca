"""Request and Source: the input and the output of each data reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec, InputSpec

# Largest size of one split in memory.
MAX_SPLIT_BYTES = 2**32

KNOWN_SPLITS = ("train", "calibration", "validation", "test")

# Usual names of splits by their synonyms.
SPLIT_SYNONYMS = {
    "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation",
    "training": "train", "testing": "test",
}  # fmt: skip

# Largest number of classes. Larger labels are numbers of something else.
MAX_CLASSES = 1_000_000

# Label of a sample without one. ``Request.choose`` leaves such samples out.
MISSING = -(2**63)

# Decodes samples of a split, by ascending numbers (M,): inputs (M, ...), and the number of samples of each remark.
Decode = Callable[[str, Tensor], tuple[Tensor, Counter[str]]]

# Fix for data with names or folders that are not labels.
NO_LABELS = "load the data without labels (labels=False)"


@dataclass(frozen=True)
class Request:
    """Requested samples of a split."""

    spec: InputSpec
    limit: int | None  # samples
    seed: int
    num_classes: int | None = None  # of the model
    labels: bool = True  # False: names and folders are not labels
    label_column: str | None = None  # of a table, or the array of an .npz file; None: a usual name

    @property
    def image_spec(self) -> ImageSpec:
        """Input specification of an image model; raises UnusableInput for a text model."""
        if not isinstance(self.spec, ImageSpec):
            raise UnusableInput("expected texts for a text model, got images")
        return self.spec

    def of_split(self, name: str, names: Collection[str]) -> Request:
        """Return the request for one split, with twice the limit if calibration is carved out of it.

        Args:
            name: Name of the split in the data.
            names: Names of all splits in the data.
        """
        carved = carved_from([split_name(each) for each in names])
        doubled = self.limit is not None and split_name(name) == carved
        return replace(self, limit=2 * self.limit) if doubled and self.limit else self

    def choose(self, split: Split) -> Split:
        """Draw samples, balanced over the classes; their order stays. Samples with the label ``MISSING`` are left out.

        Args:
            split: The numbers of all samples, and their labels.
        """
        index = torch.arange(len(split)) if split.y is None else (split.y != MISSING).nonzero().squeeze(1)
        wanted = len(index) if self.limit is None else self.limit
        labels = None if split.y is None else split.y[index]
        return split.take(Split(index, labels).sample(wanted, seed=self.seed).x.sort().values)

    def check_size(self, count: int) -> None:
        """Raise UnusableInput if ``count`` inputs need more than ``MAX_SPLIT_BYTES``."""
        if self.spec.bytes_per_sample * count > MAX_SPLIT_BYTES:
            size = "x".join(map(str, self.spec.shape))
            raise UnusableInput(
                f"expected at most {MAX_SPLIT_BYTES >> 30} GiB of data, got {count} {self.spec.modality}s of {size}. "
                "Fix: set a limit of samples."
            )


class NamesFrom(StrEnum):
    """Origin of the class names of a data set, and with it the meaning of their order."""

    DATA = "data"  # a list in the data set: a name's position is its label
    FOLDERS = "folders"  # alphabetical order
    WORDS = "words"  # labels are words, in alphabetical order


@dataclass(frozen=True)
class Source:
    """Output of a reader: numbers and labels of the samples, and a function that decodes them."""

    name: str
    splits: Mapping[str, Split]  # x: numbers (N,) int64 of the samples in their split; y: labels as in the data
    decode: Decode
    class_names: tuple[str, ...] | None = None  # by label; None: unknown
    names_from: NamesFrom = NamesFrom.DATA
    notes: tuple[str, ...] = ()  # guesses of the reader, in sentences for people
    kind: str = "data"  # in words: "folder of images"
    labels_from: str = ""  # in words: "folder names"; empty: no labels
    totals: Mapping[str, int] = field(default_factory=dict)  # samples of each split before the limit
    left_out: Counter[str] = field(default_factory=Counter)  # parts of the source without use, and their counts


def carved_from(names: Sequence[str]) -> str | None:
    """Return the split of ``names`` to carve calibration out of; None if there is a calibration split."""
    if "calibration" in names:
        return None
    return next((name for name in ("train", "validation") if name in names), names[0])


def split_name(text: str) -> str:
    """Return the usual name of a split."""
    return SPLIT_SYNONYMS.get(text.lower(), text.lower())
