"""Which values of an ONNX graph are the same for all samples: a branch that never does anything on clean data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from torch import Tensor

BATCH = 16
SAME = 1e-3


def values_in(
    model: onnx.ModelProto, names: Sequence[str], x: Tensor, *, batch: int | None
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The values ``names`` for samples ``x`` (N, ...), as the graph takes them: how many at a time, and what they are.

    ``batch``: so many samples at a time, and what is left of ``x`` stays out; None: any number.
    """
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    # Or values would be fused away.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source, kind = session.get_inputs()[0].name, session.get_inputs()[0].type
    dtype = {"tensor(float16)": np.float16, "tensor(int64)": np.int64}.get(kind, np.float32)
    for part in x.split(batch or BATCH):
        if batch is None or len(part) == batch:
            found = session.run(list(names), {source: part.numpy().astype(dtype)})
            yield len(part), [np.asarray(value) for value in found]


def same_for_all(model: onnx.ModelProto, names: Sequence[str], x: Tensor, *, batch: int | None) -> frozenset[str]:
    """Those of ``names`` whose value is the same for each of the samples ``x`` (N, ...), as :func:`values_in` has them.

    Only values with one row a sample count. The same: but for ``SAME`` of its size, which changes no answer.
    """
    first: dict[str, np.ndarray] = {}
    same = set(names)
    for size, found in values_in(model, names, x, batch=batch):
        for name, rows in zip(names, found, strict=True):
            if rows.ndim < 1 or len(rows) != size:
                same.discard(name)
                continue
            start = first.setdefault(name, rows[0])
            size_of_it = float(np.abs(np.nan_to_num(start.astype(np.float64))).max(initial=1.0))
            if not np.allclose(rows, start, rtol=0, atol=SAME * size_of_it, equal_nan=True):
                same.discard(name)
        if not same:
            break
    return frozenset(same)
