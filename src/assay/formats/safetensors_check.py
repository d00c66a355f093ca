"""A safetensors file read with suspicion: sizes and offsets before anything is allocated, NaN before any use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.core.errors import UnusableInput

MAX_HEADER_BYTES = 16 * 2**20
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """The tensors and the text metadata of one safetensors file."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_weights(path: Path) -> Weights:
    """Reads a safetensors file; raises ``UnusableInput`` where it is malformed or holds NaN or infinite values."""
    header = read_header(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise UnusableInput(f"{path}: is not a valid safetensors file ({error}); download or save it again") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not _finite(tensor):
            raise UnusableInput(f"{path}: tensor {name!r} holds NaN or infinite values; expected finite weights")
    return Weights(tensors, header.get("__metadata__", {}))


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file after every check that needs no tensor data.

    The format: 8 bytes little-endian header length, the header as JSON, the tensors' bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > size - 8:
            raise UnusableInput(
                f"{path}: truncated or not safetensors: its header should have {length} bytes, the file has {size}; "
                "download or save it again"
            )
        if length > MAX_HEADER_BYTES:
            raise UnusableInput(f"{path}: expected a header of at most {MAX_HEADER_BYTES} bytes, came {length}")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"{path}: its header is not valid JSON ({error}); expected a safetensors file") from None
    if not isinstance(header, dict):
        raise UnusableInput(f"{path}: expected a JSON object as header, came a {type(header).__name__}")
    _check_metadata(path, header.get("__metadata__", {}))
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if not entries:
        raise UnusableInput(f"{path}: expected a model's tensors, the file holds none")
    for name, entry in entries.items():
        _check_entry(path, name, entry, size - 8 - length)
    return header


def _check_metadata(path: Path, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnusableInput(f"{path}: expected text values in the header's metadata, came something else")


def _check_entry(path: Path, name: str, entry: object, available: int) -> None:
    """One tensor's dtype, shape and offsets against each other and against the bytes that are there."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]  # type: ignore[index]
        numbers = [start, end, *shape]
        well_formed = all(type(value) is int and value >= 0 for value in numbers) and dtype in BITS
    except (TypeError, KeyError, ValueError):
        well_formed = False
    if not well_formed:
        raise UnusableInput(f"{path}: the header's entry of tensor {name!r} is malformed or of an unknown type")
    if end > available:
        raise UnusableInput(
            f"{path}: truncated: tensor {name!r} ends at byte {end} of {available} that are there; download it again"
        )
    if end - start != prod(shape) * BITS[dtype] // 8:
        raise UnusableInput(f"{path}: tensor {name!r} of shape {shape} does not fit its {end - start} bytes")


def _finite(tensor: Tensor) -> bool:
    # One-byte floats know no isfinite.
    return bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all())
