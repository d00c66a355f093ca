"""Data in memory: tensors, NumPy arrays, a torch ``DataLoader`` or ``Dataset``. Only as many samples as asked for are
drawn from the last two: each may decode a file."""

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
    "expected data as pictures (N, C, H, W) in [0, 1], as a pair of pictures and labels, or as a DataLoader or Dataset"
)


def in_memory(data: object, *, limit: int, seed: int) -> Split:
    """The pictures (N, C, H, W) float32, and labels (N,) int64 where there are some, on the CPU.

    At most ``limit`` samples are drawn from a Dataset, at random, and from a DataLoader or an IterableDataset, its
    first ones. Their shape and range are not looked at. Raises UnusableInput for anything else.
    """
    x: object
    y: object
    if isinstance(data, DataLoader):
        return _mixed(_drawn(lambda: (_pair(batch) for batch in data), limit, seed), limit)
    if isinstance(data, IterableDataset):
        return _mixed(_drawn(lambda: _singly(data), limit, seed), limit)
    if isinstance(data, Dataset):
        return _drawn(lambda: _singly(_some(data, limit, seed)), limit, seed)
    if isinstance(data, Split):
        x, y = data.x, data.y
    elif isinstance(data, Tensor | np.ndarray):
        x, y = data, None
    elif isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
    else:
        came = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
        raise UnusableInput(f"{EXPECTED}; got a {came}")
    return Split(_pictures(x), None if y is None else _labels(y))


def _drawn(batches: Callable[[], Iterator[tuple[Any, Any]]], limit: int, seed: int) -> Split:
    """Batches put together until there are ``limit`` samples; torch's own randomness is left as it was."""
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # what a shuffling loader draws from
        try:
            for x, y in batches():
                xs.append(_pictures(x))
                ys += [] if y is None else [_labels(y)]
                if sum(map(len, xs)) >= limit:
                    break
            x = torch.cat(xs) if xs else torch.zeros(0)
            labels = torch.cat(ys) if ys else None
        except UnusableInput:
            raise
        except Exception as error:  # whatever the user's own data set raises
            raise UnusableInput(f"the data cannot be read: {type(error).__name__}: {first_line(error)}") from None
    if not len(x):
        raise UnusableInput(f"{EXPECTED}; got one without samples")
    return Split(x[:limit], None if labels is None else labels[:limit])


def _some(data: Dataset[Any], limit: int, seed: int) -> Iterator[Any]:
    """At most ``limit`` samples of a data set, drawn at random."""
    count = len(data)  # type: ignore[arg-type]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit]
    return (data[index] for index in order.tolist())


def _singly(samples: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Samples as batches of one."""
    for sample in samples:
        x, y = _pair(sample)
        yield _pictures(x)[None], None if y is None else torch.as_tensor(y).reshape(1)


def _mixed(split: Split, limit: int) -> Split:
    """The first samples of a stream, which must not be sorted by class."""
    if split.y is not None and len(split) == limit > 1 and len(split.y.unique()) == 1:
        raise UnusableInput(
            f"expected samples of several classes, the first {limit} of the data are all of class {int(split.y[0])}: "
            "give a DataLoader with shuffle=True, or the Dataset itself"
        )
    return split


def _pair(item: Any) -> tuple[Any, Any]:
    """A batch or sample as pictures and labels: of longer tuples the first two are these."""
    if isinstance(item, tuple | list) and item:
        return (item[0], item[1]) if len(item) > 1 else (item[0], None)
    if isinstance(item, Tensor | np.ndarray):
        return item, None
    raise UnusableInput(f"expected pictures, or pictures and labels, of the data; got a {type(item).__name__}")


def _pictures(value: object) -> Tensor:
    """A tensor or array as a tensor on the CPU; floats become float32."""
    if isinstance(value, Tensor):
        x = value.detach().cpu()
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        kind = np.float32 if value.dtype.kind == "f" else None
        x = torch.from_numpy(np.require(value, kind, ["C", "W"]))
    else:
        raise UnusableInput(
            f"expected pictures as a float tensor or array in [0, 1]; got {_kind(value)}: convert them first, "
            "a Dataset by its transform"
        )
    return x.float() if x.is_floating_point() else x


def _labels(value: object) -> Tensor:
    """A tensor, array or list of whole numbers as int64; what else it holds is left as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = np.require(value, np.int64 if value.dtype.kind in "iu" else None, ["C", "W"])
    elif not isinstance(value, Tensor | list | tuple):
        raise UnusableInput(f"expected labels as a tensor, an array or a list of whole numbers; got {_kind(value)}")
    try:
        y = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(f"expected labels as a list of whole numbers; got {first_line(error)}") from None
    return y if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool else y.long()


def _kind(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
