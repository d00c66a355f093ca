"""Which values of an ONNX graph are the same for all samples: a branch that never does anything on clean data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from torch import Tensor

BATCH = 16


def values_in(
    model: onnx.ModelProto, names: Sequence[str], x: Tensor, *, batched: bool
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The values ``names`` for samples ``x`` (N, ...), as the graph takes them: how many at a time, and what they are.

    ``batched``: the graph takes any number of samples at a time.
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
    for batch in x.split(BATCH if batched else 1):
        found = session.run(list(names), {source: batch.numpy().astype(dtype)})
        yield len(batch), [np.asarray(value) for value in found]


def same_for_all(model: onnx.ModelProto, names: Sequence[str], x: Tensor, *, batched: bool) -> frozenset[str]:
    """Those of ``names`` whose value is the same for each of the samples ``x`` (N, ...), as :func:`values_in` has them.

    Only values with one row a sample count.
    """
    first: dict[str, np.ndarray] = {}
    same = set(names)
    for size, found in values_in(model, names, x, batched=batched):
        for name, rows in zip(names, found, strict=True):
            if rows.ndim < 1 or len(rows) != size:
                same.discard(name)
                continue
            start = first.setdefault(name, rows[0])
            if not all(np.array_equal(row, start, equal_nan=True) for row in rows):
                same.discard(name)
        if not same:
            break
    return frozenset(same)
