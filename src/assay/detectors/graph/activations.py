"""Values inside an ONNX graph, and constant activations: branches with the same value for all clean samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from assay.formats.onnx.session import watching_session

if TYPE_CHECKING:
    import onnx

BATCH_SIZE = 16  # samples, for a graph of any batch size
CONSTANT_TOLERANCE = 1e-3  # of a value's size: a smaller difference changes no output


def iterate_values(
    model: onnx.ModelProto, names: Sequence[str], x: Tensor, *, batch: int | None
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Run a graph and yield some of its values, batch by batch.

    Args:
        model: The graph.
        names: Names of the values.
        x: Samples (N, ...) in the layout of the graph's input.
        batch: Fixed batch size of the graph, which leaves the rest of ``x`` out; None for any.

    Yields:
        The number of samples in a batch, and one array for each name.
    """
    session = watching_session(model, names)
    source, kind = session.get_inputs()[0].name, session.get_inputs()[0].type
    types = {"float16": np.float16, "double": np.float64, "uint8": np.uint8, "int64": np.int64}
    dtype = types.get(kind.removeprefix("tensor(").removesuffix(")"), np.float32)
    for part in x.split(batch or BATCH_SIZE):
        if batch is None or len(part) == batch:
            found = session.run(list(names), {source: part.numpy().astype(dtype)})
            yield len(part), [np.asarray(value) for value in found]


def constant_activations(
    model: onnx.ModelProto, names: Sequence[str], x: Tensor, *, batch: int | None
) -> frozenset[str]:
    """Return the values that are the same for all samples, up to ``CONSTANT_TOLERANCE``.

    Args:
        model: The graph.
        names: Names of the candidate values. Only values with one row per sample count.
        x: Samples (N, ...), as for :func:`iterate_values`.
        batch: Fixed batch size of the graph; None for any.
    """
    first: dict[str, np.ndarray] = {}
    constant = set(names)
    for size, values in iterate_values(model, names, x, batch=batch):
        for name, rows in zip(names, values, strict=True):
            if rows.ndim < 1 or len(rows) != size:
                constant.discard(name)
                continue
            start = first.setdefault(name, rows[0])
            magnitude = float(np.abs(np.nan_to_num(start.astype(np.float64))).max(initial=1.0))
            if not np.allclose(rows, start, rtol=0, atol=CONSTANT_TOLERANCE * magnitude, equal_nan=True):
                constant.discard(name)
        if not constant:
            break
    return frozenset(constant)
