"""The weights in an ONNX file, quantized ones as real numbers."""

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
    """Weights by name, as float32."""

    values: Mapping[str, np.ndarray]
    scales: Mapping[str, np.ndarray]  # step size of quantized weights; they broadcast
    integers: Mapping[str, np.ndarray]  # signed 8-bit weights by the name in the file


def read_stored_weights(model: onnx.ModelProto, path: Path) -> StoredWeights:
    """Return the weights among a model's initializers.

    Args:
        model: The model.
        path: Its file.

    Raises:
        UnusableInput: An initializer is malformed, NaN or infinite.
    """
    raw = _read_initializers(model, path)
    settings = {name for node in model.graph.node if node.op_type.endswith("QuantizeLinear") for name in node.input[1:]}
    settings |= {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.input[1:]}
    values = {
        name: array.astype(np.float32)
        for name, array in raw.items()
        if array.dtype.kind == "f" and array.ndim and name not in settings
    }
    scales: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in raw and node.input[1] in raw:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            q, scale = raw[node.input[0]], raw[node.input[1]]
            zero = raw[node.input[2]] if len(node.input) > 2 and node.input[2] in raw else np.zeros((), np.float32)
            if scale.ndim <= 1:  # scales by blocks are not supported
                name = node.input[0].removesuffix("_quantized")
                with _readable(node.input[0], path):
                    scales[name] = _broadcastable(scale, axis, q.ndim)
                    values[name] = (q.astype(np.float32) - _broadcastable(zero, axis, q.ndim)) * scales[name]
    return StoredWeights(values, scales, {name: array for name, array in raw.items() if array.dtype == np.int8})


def _read_initializers(model: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    raw = {}
    for tensor in model.graph.initializer:
        with _readable(tensor.name, path):
            raw[tensor.name] = numpy_helper.to_array(tensor, base_dir=str(path.parent))
    for name, array in raw.items():
        if array.dtype.kind == "f" and (np.isnan(array).any() or (array.ndim > 1 and np.isinf(array).any())):
            raise UnusableInput(f"{path}: initializer {name!r} holds NaN or infinite values; expected finite weights")
    return raw


@contextmanager
def _readable(name: str, path: Path) -> Iterator[None]:
    """Turn any error about an initializer into one line; a hostile file can raise anything."""
    try:
        yield
    except Exception as error:
        raise UnusableInput(
            f"{path}: initializer {name!r} cannot be read; expected data and scales of its shape: {first_line(error)}"
        ) from None


def _broadcastable(numbers: np.ndarray, axis: int, dimensions: int) -> np.ndarray:
    """Return one number, or one per position along ``axis``, in a broadcastable shape."""
    shape = [1] * dimensions
    if numbers.size > 1:
        shape[axis] = numbers.size
    return numbers.astype(np.float32).reshape(shape)
