"""Safe reading of ``.onnx`` files: bounded sizes, and external data inside the model's folder only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.core.errors import UnusableInput, first_line
from assay.formats.onnx.bounds import check_bounds
from assay.formats.onnx.external_data import external_files_of
from assay.formats.onnx.names import check_names
from assay.io.files import check_binary_file

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 2**31  # protobuf's own limit


def read_onnx_model(path: Path) -> onnx.ModelProto:
    """Return the parsed file, with the place and size of its external data checked, but not its content.

    Raises:
        UnusableInput: The file is malformed or too large, asks for too much time or memory, repeats a name, has custom
            operators, or its external data lies outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    check_binary_file(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnusableInput(f"{path}: expected an ONNX file of at most {MAX_BYTES} bytes, got {size}")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, RuntimeError, OSError) as error:
        raise UnusableInput(f"{path}: is not a valid ONNX file ({first_line(error)}). Fix: export it again.") from None
    if not model.graph.node:
        raise UnusableInput(f"{path}: is not a valid ONNX file: its graph is empty. Fix: export it again.")
    check_bounds(model, path)
    check_names(model, path)
    external_files_of(model, path)
    return model


def external_files(path: Path) -> list[Path]:
    """Return the files with tensors of an ONNX file; none if it cannot be parsed or they lie outside its folder."""
    try:
        return external_files_of(read_onnx_model(path), path)
    except UnusableInput:  # loading the model reports the reason
        return []
