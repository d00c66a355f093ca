"""Safe reading of ``.onnx`` files: bounded sizes, and external data inside the model's folder only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from assay.core.errors import UnusableInput, first_line
from assay.io.files import inside

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 2**31  # protobuf's own limit
MAX_EXTERNAL_BYTES = 2**34


def read_onnx_model(path: Path) -> onnx.ModelProto:
    """Return the parsed file, with the place and size of its external data checked, but not its content.

    Raises:
        UnusableInput: The file is malformed or too large, or its external data lies outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnusableInput(f"{path}: expected an ONNX file of at most {MAX_BYTES} bytes, got {size}")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, RuntimeError, OSError) as error:
        raise UnusableInput(f"{path}: is not a valid ONNX file ({first_line(error)}). Fix: export it again.") from None
    if not model.graph.node:
        raise UnusableInput(f"{path}: is not a valid ONNX file: its graph is empty. Fix: export it again.")
    total = sum(file.stat().st_size for file in external_files_of(model, path))
    if total > MAX_EXTERNAL_BYTES:
        raise UnusableInput(f"{path}: expected at most {MAX_EXTERNAL_BYTES} bytes of external data, got {total}")
    return model


def external_files(path: Path) -> list[Path]:
    """Return the files with tensors of an ONNX file; none if it cannot be parsed or they lie outside its folder."""
    try:
        return external_files_of(read_onnx_model(path), path)
    except UnusableInput:  # loading the model reports the reason
        return []


def external_files_of(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Return the files with tensors of a model, sorted, all of them in its folder.

    Args:
        model: The model.
        path: Its file.

    Raises:
        UnusableInput: A file is missing or lies outside the folder.
    """
    import onnx

    names: list[str] = []
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names += [entry.value for entry in tensor.external_data if entry.key == "location"] or [""]
    if any(not name or Path(name).is_absolute() for name in names):
        raise UnusableInput(
            f"{path}: its external data leads out of the model's folder. Fix: move all its files inside."
        )
    return sorted({inside(path.parent, name) for name in names})


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of the model: in its graph, in graphs inside nodes, in its functions."""
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
        else:
            for attribute in nodes.pop().attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                graphs += [graph for graph in (attribute.g, *attribute.graphs) if graph.node or graph.initializer]
