"""Reader of data in memory: tensors, NumPy arrays, a torch ``DataLoader`` or ``Dataset``, lists of samples.

Samples are images, pairs of image and label, or dicts of them; images are tensors, arrays or pillow images. The reader
draws only the requested samples from a data set or loader, because each sample may decode a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from assay.core.dataset import Split
from assay.core.errors import UnusableInput, first_line
from assay.core.model import ImageSpec, InputSpec
from assay.data.columns import LABEL_COLUMNS
from assay.data.images import decode_image
from assay.data.label_values import is_one_hot

EXPECTED = (
    "expected data as images (N, C, H, W) in [0, 1], as a pair of images and labels, or as a DataLoader or Dataset"
)

# Usual keys of samples that are dicts.
INPUT_KEYS = ("image", "images", "img", "x", "input", "inputs", "data", "pixel_values")
LABEL_KEYS = (*LABEL_COLUMNS, "y", "targets")

DIVIDED = "uint8 images were divided by 255"
MOVED = "images (N, H, W, C) were changed to (N, C, H, W)"


def read_samples(
    data: object, spec: InputSpec, *, limit: int, seed: int, label_column: str | None = None
) -> tuple[Split, tuple[str, ...]]:
    """Return data in memory as model inputs, and notes on their conversion.

    Images of 8 bits and images (N, H, W, C) are converted. Pillow images are resized like files.

    Args:
        data: As for ``read_in_memory``.
        spec: The model's input specification.
        limit: As for ``read_in_memory``.
        seed: Seed of the draw.
        label_column: Key of the labels in samples that are dicts; None: a usual one.

    Raises:
        UnusableInput: The data has another type, or cannot be read.
    """
    reader = _Reader(spec, label_column)
    split = reader.read(data, limit, seed)
    if not isinstance(spec, ImageSpec):
        return split, ()
    x, notes = split.x, [f"{count:,} {remark}" for remark, count in reader.remarks.items()]
    if x.dtype == torch.uint8:
        x, notes = x.float() / 255, [*notes, DIVIDED]
    if x.ndim == 3 and spec.shape[0] == 1 and x.shape[1:] == spec.shape[1:]:
        x = x[:, None]
    if x.ndim == 4 and x.shape[1:] != spec.shape and (x.shape[3], *x.shape[1:3]) == spec.shape:
        x, notes = x.permute(0, 3, 1, 2).contiguous(), [*notes, MOVED]
    return Split(x, split.y), tuple(notes)


def read_in_memory(data: object, *, limit: int, seed: int) -> Split:
    """Return images (N, C, H, W) float32, and labels (N,) int64 if there are some, on the CPU.

    The function does not check shapes and ranges.

    Args:
        data: Images, images and labels, a Split, a list of samples, or a torch data set or loader.
        limit: Largest number of samples: a random draw from a Dataset, the first ones of a DataLoader or
            IterableDataset.
        seed: Seed of the draw.

    Raises:
        UnusableInput: The data has another type, or cannot be read.
    """
    return _Reader().read(data, limit, seed)


@dataclass
class _Reader:
    """Reader of samples in memory for one model."""

    spec: InputSpec | None = None  # None: pillow images cannot be resized and are refused
    label_column: str | None = None
    remarks: Counter[str] = field(default_factory=Counter)  # on unusual images

    def read(self, data: object, limit: int, seed: int) -> Split:
        """Return the samples and their labels."""
        x: object
        y: object
        if isinstance(data, DataLoader):
            batches = lambda: (self.split_item(batch) for batch in data)  # noqa: E731
            return _require_mixed(self.collect(batches, limit, seed), limit)
        if isinstance(data, IterableDataset):
            return _require_mixed(self.collect(lambda: self.single_batches(data), limit, seed), limit)
        if isinstance(data, Dataset) or _is_list_of_samples(data) or _is_table(data):
            return self.collect(lambda: self.single_batches(_draw(data, limit, seed)), limit, seed)
        if isinstance(data, Split):
            x, y = data.x, data.y
        elif isinstance(data, Tensor | np.ndarray):
            x, y = data, None
        elif isinstance(data, tuple | list) and len(data) == 2:
            x, y = data
        elif isinstance(data, Mapping):
            x, y = self.split_dict(data)
        else:
            got = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
            raise UnusableInput(f"{EXPECTED}; got a {got}")
        return Split(_to_inputs(x), None if y is None else _to_labels(y))

    def collect(self, batches: Callable[[], Iterator[tuple[Any, Any]]], limit: int, seed: int) -> Split:
        """Join batches up to ``limit`` samples; torch's own random state stays as it was."""
        xs: list[Tensor] = []
        ys: list[Tensor] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # a shuffling loader draws from it
            try:
                for x, y in batches():
                    xs.append(_to_inputs(x))
                    ys += [] if y is None else [_to_labels(y)]
                    if sum(map(len, xs)) >= limit:
                        break
                x = torch.cat(xs) if xs else torch.zeros(0)
                labels = torch.cat(ys) if ys else None
            except UnusableInput:
                raise
            except Exception as error:  # the user's own data set can raise anything
                raise UnusableInput(f"the data cannot be read: {type(error).__name__}: {first_line(error)}") from None
        if not len(x):
            raise UnusableInput(f"{EXPECTED}; got one without samples")
        if labels is not None and len(labels) != len(x):
            raise UnusableInput(f"expected a label for each of {len(x)} samples, got {len(labels)} labels")
        return Split(x[:limit], None if labels is None else labels[:limit])

    def single_batches(self, samples: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield samples as batches of one."""
        for sample in samples:
            x, y = self.split_item(sample)
            if isinstance(x, Image.Image):
                x = self.decode(x)
            yield _to_inputs(x)[None], None if y is None else self.single_label(y)

    def split_item(self, item: Any) -> tuple[Any, Any]:
        """Return the images and labels of a batch or sample: the first two entries of a longer tuple."""
        if isinstance(item, Mapping):
            return self.split_dict(item)
        if isinstance(item, tuple | list) and item:
            return (item[0], item[1]) if len(item) > 1 else (item[0], None)
        if isinstance(item, Tensor | np.ndarray | Image.Image):
            return item, None
        raise UnusableInput(f"expected images, or images and labels, of the data; got a {type(item).__name__}")

    def split_dict(self, item: Mapping[Any, Any]) -> tuple[Any, Any]:
        """Return the images and labels of a sample or batch that is a dict, by usual keys."""
        keys = {str(key).casefold(): key for key in item}
        image = next((keys[key] for key in INPUT_KEYS if key in keys), None)
        if image is None:
            raise UnusableInput(
                f"expected images under a usual key ({', '.join(INPUT_KEYS)}), got {type(item).__name__} with the keys "
                f"{', '.join(map(str, item))}"
            )
        if self.label_column is not None:
            if self.label_column not in item:
                got = ", ".join(map(str, item))
                raise UnusableInput(f"expected labels under the key {self.label_column!r}, got the keys {got}")
            return item[image], item[self.label_column]
        label = next((keys[key] for key in LABEL_KEYS if key in keys), None)
        return item[image], None if label is None else item[label]

    def decode(self, image: Image.Image) -> Tensor:
        """Return a pillow image as a model input."""
        if not isinstance(self.spec, ImageSpec):
            return _to_inputs(image)  # raises
        return decode_image(image, self.spec, "an image of the data", self.remarks)

    def single_label(self, value: Any) -> Tensor:
        """Return the label of one sample (1,)."""
        if isinstance(value, str):
            raise UnusableInput(f"expected labels as whole numbers, got the text {value[:40]!r}")
        return torch.as_tensor(value).reshape(1)


def _is_list_of_samples(data: object) -> bool:
    """Return True for a list of dicts, of pillow images, or of pairs of image and label."""
    if not isinstance(data, list | tuple) or not data:
        return False
    kinds = (Mapping, Image.Image)
    if all(isinstance(item, kinds) for item in data):
        return True
    pairs = all(isinstance(item, tuple | list) and len(item) == 2 for item in data)
    first = data[0][0] if pairs else None
    return isinstance(first, Image.Image) or (isinstance(first, Tensor | np.ndarray) and first.ndim <= 3)


def _is_table(data: object) -> bool:
    """Return True for a map-style data set of another library, as of Hugging Face's ``datasets``."""
    plain = (Tensor, np.ndarray, str, bytes, Sequence, Mapping, Split)
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, plain)


def _draw(data: Any, limit: int, seed: int) -> Iterator[Any]:
    """Return at most ``limit`` samples of a data set, drawn at random."""
    count = len(data)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit]
    return (data[index] for index in order.tolist())


def _require_mixed(split: Split, limit: int) -> Split:
    """Return the first samples of a stream; raise UnusableInput if the stream is sorted by class."""
    if split.y is not None and len(split) == limit > 1 and len(split.y.unique()) == 1:
        raise UnusableInput(
            f"expected samples of several classes, got class {int(split.y[0])} for the first {limit} of the data. "
            "Fix: give a DataLoader with shuffle=True, or the Dataset itself."
        )
    return split


def _to_inputs(value: object) -> Tensor:
    """Return a tensor or array as a tensor on the CPU; floats become float32."""
    if isinstance(value, Tensor):
        x = value.detach().cpu()
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        kind = np.float32 if value.dtype.kind == "f" else None
        x = torch.from_numpy(np.require(value, kind, ["C", "W"]))
    else:
        raise UnusableInput(
            f"expected images as a float tensor or array in [0, 1]; got {_describe(value)}. "
            "Fix: convert them first, a Dataset by its transform."
        )
    return x.float() if x.is_floating_point() else x


def _to_labels(value: object) -> Tensor:
    """Return whole numbers or one-hot rows as int64; other numbers keep their type."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = np.require(value, np.int64 if value.dtype.kind in "iu" else None, ["C", "W"])
    elif not isinstance(value, Tensor | list | tuple):
        raise UnusableInput(f"expected labels as a tensor, an array or a list of whole numbers; got {_describe(value)}")
    try:
        y = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(f"expected labels as a list of whole numbers; got {first_line(error)}") from None
    if y.ndim == 2 and not y.is_complex() and is_one_hot(y.double().numpy()):
        return y.long().argmax(1)
    whole = not y.is_floating_point() or bool((y == y.round()).all())
    return y.long() if whole and not y.is_complex() and y.dtype != torch.bool else y


def _describe(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
