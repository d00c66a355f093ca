"""Reader of data in memory: tensors, NumPy arrays, a torch ``DataLoader`` or ``Dataset``.

The reader draws only the requested samples from the last two, because each sample may decode a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from assay.core.dataset import Split
from assay.core.errors import UnusableInput, first_line

EXPECTED = (
    "expected data as images (N, C, H, W) in [0, 1], as a pair of images and labels, or as a DataLoader or Dataset"
)


def read_in_memory(data: object, *, limit: int, seed: int) -> Split:
    """Return images (N, C, H, W) float32, and labels (N,) int64 if there are some, on the CPU.

    The function does not check shapes and ranges.

    Args:
        data: Images, images and labels, a Split, or a torch data set or loader.
        limit: Largest number of samples: a random draw from a Dataset, the first ones of a DataLoader or
            IterableDataset.
        seed: Seed of the draw.

    Raises:
        UnusableInput: The data has another type, or cannot be read.
    """
    x: object
    y: object
    if isinstance(data, DataLoader):
        return _require_mixed(_collect(lambda: (_split_item(batch) for batch in data), limit, seed), limit)
    if isinstance(data, IterableDataset):
        return _require_mixed(_collect(lambda: _single_batches(data), limit, seed), limit)
    if isinstance(data, Dataset):
        return _collect(lambda: _single_batches(_draw(data, limit, seed)), limit, seed)
    if isinstance(data, Split):
        x, y = data.x, data.y
    elif isinstance(data, Tensor | np.ndarray):
        x, y = data, None
    elif isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
    else:
        got = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
        raise UnusableInput(f"{EXPECTED}; got a {got}")
    return Split(_to_inputs(x), None if y is None else _to_labels(y))


def _collect(batches: Callable[[], Iterator[tuple[Any, Any]]], limit: int, seed: int) -> Split:
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
    return Split(x[:limit], None if labels is None else labels[:limit])


def _draw(data: Dataset[Any], limit: int, seed: int) -> Iterator[Any]:
    """Return at most ``limit`` samples of a data set, drawn at random."""
    count = len(data)  # type: ignore[arg-type]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit]
    return (data[index] for index in order.tolist())


def _single_batches(samples: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield samples as batches of one."""
    for sample in samples:
        x, y = _split_item(sample)
        yield _to_inputs(x)[None], None if y is None else torch.as_tensor(y).reshape(1)


def _require_mixed(split: Split, limit: int) -> Split:
    """Return the first samples of a stream; raise UnusableInput if the stream is sorted by class."""
    if split.y is not None and len(split) == limit > 1 and len(split.y.unique()) == 1:
        raise UnusableInput(
            f"expected samples of several classes, got class {int(split.y[0])} for the first {limit} of the data. "
            "Fix: give a DataLoader with shuffle=True, or the Dataset itself."
        )
    return split


def _split_item(item: Any) -> tuple[Any, Any]:
    """Return the images and labels of a batch or sample: the first two entries of a longer tuple."""
    if isinstance(item, tuple | list) and item:
        return (item[0], item[1]) if len(item) > 1 else (item[0], None)
    if isinstance(item, Tensor | np.ndarray):
        return item, None
    raise UnusableInput(f"expected images, or images and labels, of the data; got a {type(item).__name__}")


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
    """Return a tensor, array or list of whole numbers as int64; other numbers keep their type."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = np.require(value, np.int64 if value.dtype.kind in "iu" else None, ["C", "W"])
    elif not isinstance(value, Tensor | list | tuple):
        raise UnusableInput(f"expected labels as a tensor, an array or a list of whole numbers; got {_describe(value)}")
    try:
        y = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(f"expected labels as a list of whole numbers; got {first_line(error)}") from None
    return y if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool else y.long()


def _describe(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
