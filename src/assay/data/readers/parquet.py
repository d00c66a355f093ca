"""Parquet files in the hub's layout: ``train-00000-of-00001.parquet`` and so on, here, in ``data/`` or one below."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Modality, TextSpec
from assay.data.images import decode_all
from assay.data.request import Request, Source, split_name
from assay.data.tokenize import encoded, told_of_cut

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FILE_NAME = re.compile(r"(?P<split>[A-Za-z]+(?:_[A-Za-z]+)*)(?:[-_.]\d.*)?\.parquet")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "coarse_label")
MAX_ROW_GROUPS = 64
"""With a limit, at most this many row groups of a split are opened: spread over its files, drawn at random."""


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """Split name -> its files; empty where there are none."""
    if path.is_file():
        return {"train": [path]} if path.suffix.lower() == ".parquet" else {}
    folders = [
        path,
        path / "data",
        *sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")),
    ]
    for folder in folders:
        splits: dict[str, list[Path]] = {}
        for file in sorted(file for file in folder.glob("*.parquet") if not file.name.startswith(".")):
            match = FILE_NAME.fullmatch(file.name)
            splits.setdefault(split_name(match["split"]) if match else "train", []).append(file)
        if splits:
            return splits
    return {}


def only_texts(path: Path) -> bool:
    """Whether a folder or file of parquet holds texts and no pictures."""
    import pyarrow.parquet as pq

    files = parquet_files(path) if path.exists() else {}
    if not files:
        return False
    try:
        schema = pq.read_schema(next(iter(files.values()))[0])
    except (OSError, ValueError):  # whoever reads it will say so
        return False
    return any(map(_holds_texts, schema)) and not any(map(_holds_pictures, schema))


def read_parquet(path: Path, request: Request) -> Source:
    """Reads the samples and labels of every split; raises ``UnusableInput`` where there are none of the wanted kind."""
    import pyarrow as pa

    splits, names, cut = {}, None, 0
    files = parquet_files(path)
    for name in files:
        try:
            splits[name], found, longer = _read_split(files[name], request.of_split(name, list(files)))
        except (pa.ArrowException, OSError) as error:
            raise UnusableInput(f"{path}: a file of its split {name} is not readable parquet ({error})") from None
        names, cut = names or found, cut + longer
    notes = told_of_cut(cut, request.spec) if isinstance(request.spec, TextSpec) else ()
    return Source(path.resolve().name, splits, names, notes=notes)


def _read_split(files: list[Path], request: Request) -> tuple[Split, tuple[str, ...] | None, int]:
    """The samples, the names of their classes, and how many texts were cut."""
    import pyarrow.parquet as pq

    opened = [pq.ParquetFile(file) for file in files]
    try:
        column, label, names = _columns(opened[0].schema_arrow, files[0], request.spec.modality)
        groups = _row_groups(opened, request)
        labels, names = _labels(groups, label, names, files[0])
        total = sum(file.metadata.row_group(group).num_rows for file, group in groups)
        rows = request.choose(total, labels)
        cut = 0
        if isinstance(request.spec, TextSpec):
            x, cut = encoded(_texts(groups, column, rows, files[0]), request.spec)
        else:
            x = decode_all(_pictures(groups, column, rows, files[0]), len(rows), request.spec)
        return Split(x, None if labels is None else labels[rows]), names, cut
    finally:
        for file in opened:
            file.close()


def _columns(schema: pa.Schema, where: Path, modality: Modality) -> tuple[str, str | None, tuple[str, ...] | None]:
    """The samples' column, the label's, and the class names that stand in the hub's own metadata of the file."""
    features = _features(schema)
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    if modality is Modality.TEXT:
        images = [name for name in schema.names if _holds_texts(schema.field(name)) and name not in LABEL_COLUMNS]
        wanted = "texts"
    else:
        images = [name for name in schema.names if kinds.get(name) == "Image" or _holds_pictures(schema.field(name))]
        wanted = "pictures (struct of bytes and path)"
    if not images:
        raise UnusableInput(
            f"{where}: expected a column of {wanted}, as the model takes {modality}; came {', '.join(schema.names)}"
        )
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    labels += [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    if not labels:
        return images[0], None, None
    names = features.get(labels[0], {}).get("names")
    return images[0], labels[0], tuple(map(str, names)) if isinstance(names, list) else None


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _holds_pictures(field: pa.Field) -> bool:
    import pyarrow.types as types

    if types.is_struct(field.type):
        return any(child.name == "bytes" and types.is_binary(child.type) for child in field.type)
    return types.is_binary(field.type) or types.is_large_binary(field.type)


def _holds_texts(field: pa.Field) -> bool:
    import pyarrow.types as types

    return types.is_string(field.type) or types.is_large_string(field.type)


def _row_groups(files: list[pq.ParquetFile], request: Request) -> list[tuple[pq.ParquetFile, int]]:
    groups = [(file, group) for file in files for group in range(file.num_row_groups)]
    if request.limit is None or len(groups) <= MAX_ROW_GROUPS:
        return groups
    generator = torch.Generator().manual_seed(request.seed)
    chosen = torch.randperm(len(groups), generator=generator)[:MAX_ROW_GROUPS].sort().values
    return [groups[int(index)] for index in chosen]


def _labels(
    groups: list[tuple[pq.ParquetFile, int]], column: str | None, names: tuple[str, ...] | None, where: Path
) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """The labels of the row groups (N,); None where they are unknown. Words become numbers in alphabetical order."""
    if column is None:
        return None, None
    values = [
        v for file, group in groups for v in file.read_row_group(group, columns=[column]).column(column).to_pylist()
    ]
    if all(value is None or value == -1 for value in values):  # what the hub writes where labels are held back
        return None, names
    if all(isinstance(value, str) for value in values):
        words = tuple(sorted(set(values)))
        order = {word: index for index, word in enumerate(words)}
        return torch.tensor([order[value] for value in values]), words
    if not all(isinstance(value, int) for value in values):
        raise UnusableInput(f"{where}: expected whole numbers or words in the column {column!r}, came something else")
    return torch.tensor([int(value) for value in values], dtype=torch.int64), names


def _pictures(
    groups: list[tuple[pq.ParquetFile, int]], column: str, rows: Tensor, where: Path
) -> Iterator[tuple[str, bytes]]:
    """The encoded pictures at ``rows`` (ascending)."""
    for row, value in _cells(groups, column, rows):
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise UnusableInput(f"{where}: row {row} holds no picture; expected its bytes in {column!r}")
        yield f"{where} row {row}", content


def _texts(groups: list[tuple[pq.ParquetFile, int]], column: str, rows: Tensor, where: Path) -> list[str]:
    """The texts at ``rows`` (ascending)."""
    found = []
    for row, value in _cells(groups, column, rows):
        if not isinstance(value, str):
            raise UnusableInput(f"{where}: row {row} holds no text; expected one in {column!r}")
        found.append(value)
    return found


def _cells(groups: list[tuple[pq.ParquetFile, int]], column: str, rows: Tensor) -> Iterator[tuple[int, Any]]:
    """Numbers and values of ``rows`` (ascending); only one row group is in memory at a time."""
    start = 0
    for file, group in groups:
        count = file.metadata.row_group(group).num_rows
        inside = rows[(rows >= start) & (rows < start + count)] - start
        if len(inside):
            cells = file.read_row_group(group, columns=[column]).column(column).take(inside.numpy())
            for index, cell in zip(inside.tolist(), cells, strict=True):
                yield start + index, cell.as_py()
        start += count
