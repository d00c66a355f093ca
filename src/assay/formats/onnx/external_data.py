"""External data of ONNX files: plain files in the model's folder, of the stated sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from assay.core.errors import UnusableInput
from assay.formats.onnx.names import subgraphs
from assay.io.files import inside

if TYPE_CHECKING:
    import onnx

MAX_EXTERNAL_BYTES = 2**34
MEMORY_MARK = "_ORT_MEM_ADDR_"  # ONNX Runtime takes the offset of such a location as an address in its own memory


def external_files_of(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Return the files with tensors of a model, sorted, all of them in its folder.

    Args:
        model: The model.
        path: Its file.

    Raises:
        UnusableInput: A file is missing, too short, a pointer to a file elsewhere, or outside the folder.
    """
    import onnx

    files: dict[str, Path] = {}
    for tensor in tensors_of(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = [(entry.key, entry.value) for entry in tensor.external_data]
        facts = dict(entries)
        name = facts.get("location", "")
        if not isinstance(name, str) or not name or len(facts) < len(entries):
            raise UnusableInput(f"{path}: expected one location of external data, got {entries!r:.200}")
        if name not in files:
            files[name] = _file(path, name)
        _check_place(tensor, facts, files[name], path)
    found = sorted(set(files.values()))
    total = sum(file.stat().st_size for file in found)
    if total > MAX_EXTERNAL_BYTES:
        raise UnusableInput(f"{path}: expected at most {MAX_EXTERNAL_BYTES} bytes of external data, got {total}")
    return found


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
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
            node = nodes.pop()
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
            graphs += subgraphs(node)


def _file(path: Path, name: str) -> Path:
    if Path(name).is_absolute() or MEMORY_MARK in name or "\\" in name:
        raise UnusableInput(
            f"{path}: its external data {name[:100]!r} leads out of the model's folder. Fix: move all its files inside."
        )
    return inside(path.parent, name)


def _check_place(tensor: onnx.TensorProto, facts: dict[str, str], file: Path, path: Path) -> None:
    """Raise UnusableInput unless a tensor lies within its file, with the length of its shape."""
    size, where = file.stat().st_size, f"{path}: external data of {str(tensor.name)[:100]!r}"
    numbers = [facts.get(key, default) for key, default in (("offset", "0"), ("length", "-1"))]
    if not all(isinstance(text, str) and text.removeprefix("-").isdecimal() and len(text) < 20 for text in numbers):
        raise UnusableInput(f"{where}: expected offset and length as whole numbers, got {numbers!r:.80}")
    offset, length = int(numbers[0]), int(numbers[1])
    needed = _bytes_of(tensor)
    if "length" not in facts:
        length = size - offset if needed is None else needed
    if offset < 0 or length < 0 or offset + length > size or (needed is not None and length != needed):
        raise UnusableInput(
            f"{where}: expected {length if needed is None else needed} bytes at {offset} within {file.name}, "
            f"got a length of {length} in a file of {size} bytes. Fix: download or export all files again."
        )


def _bytes_of(tensor: onnx.TensorProto) -> int | None:
    """Return the number of bytes of a tensor; None for types of less than one byte, and for unknown ones."""
    from onnx import helper

    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError, ValueError):
        return None
    packed = "int4" in dtype.name or "float4" in dtype.name or "int2" in dtype.name
    return None if packed or dtype.kind == "O" else math.prod(tensor.dims) * dtype.itemsize


def embed_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read all external data into the model. Links are followed, as ``external_files_of`` allows them.

    Args:
        model: The model, checked by ``external_files_of``. It is changed.
        path: Its file.
    """
    import onnx

    for tensor in tensors_of(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        file = inside(path.parent, facts["location"])
        needed = _bytes_of(tensor)
        with file.open("rb") as stream:
            stream.seek(int(facts.get("offset", "0")))
            tensor.raw_data = stream.read(int(facts["length"]) if "length" in facts else needed)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
