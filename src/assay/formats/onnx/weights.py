"""The weights that an ONNX file holds, quantized ones as the numbers that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.core.errors import UnusableInput, first_line

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class StoredWeights:
    """By name, as float32."""

    values: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]  # of quantized ones: the distance of neighbouring values, which broadcasts


def stored_weights(model: onnx.ModelProto, path: Path) -> StoredWeights:
    """The initializers of ``model``, read from ``path``; raises UnusableInput where one is broken, NaN or infinite."""
    from onnx import numpy_helper

    raw = {}
    for tensor in model.graph.initializer:
        with _reading(tensor.name, path):
            raw[tensor.name] = numpy_helper.to_array(tensor, base_dir=str(path.parent))
    values: dict[str, np.ndarray] = {}
    steps: dict[str, np.ndarray] = {}
    settings = {name for node in model.graph.node if node.op_type.endswith("QuantizeLinear") for name in node.input[1:]}
    settings |= {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.input[1:]}
    for name, array in raw.items():
        if array.dtype.kind == "f" and array.ndim and name not in settings:
            values[name] = array.astype(np.float32)
        if array.dtype.kind == "f" and (np.isnan(array).any() or (array.ndim > 1 and np.isinf(array).any())):
            raise UnusableInput(f"{path}: initializer {name!r} holds NaN or infinite values; expected finite weights")
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in raw and node.input[1] in raw:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            q, scale = raw[node.input[0]], raw[node.input[1]]
            zero = raw[node.input[2]] if len(node.input) > 2 and node.input[2] in raw else np.zeros((), np.float32)
            if scale.ndim <= 1:  # those by blocks are left as they are
                name = node.input[0].removesuffix("_quantized")
                with _reading(node.input[0], path):
                    steps[name] = _along(scale, axis, q.ndim)
                    values[name] = (q.astype(np.float32) - _along(zero, axis, q.ndim)) * steps[name]
    return StoredWeights(values, steps)


@contextmanager
def _reading(name: str, path: Path) -> Iterator[None]:
    """What is wrong with an initializer in a file of unknown make can be anything."""
    try:
        yield
    except Exception as error:
        raise UnusableInput(
            f"{path}: initializer {name!r} cannot be read; expected data and scales of its shape: {first_line(error)}"
        ) from None


def _along(numbers: np.ndarray, axis: int, dimensions: int) -> np.ndarray:
    """One number, or one for each place along ``axis``, in a shape that broadcasts."""
    shape = [1] * dimensions
    if numbers.size > 1:
        shape[axis] = numbers.size
    return numbers.astype(np.float32).reshape(shape)
