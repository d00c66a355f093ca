"""Reader of parquet files in the hub's layout: ``train-00000-of-00001.parquet``, in the folder or one below it."""

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
from assay.core.model import Modality
from assay.data.codecs import CODECS, LABEL_COLUMNS
from assay.data.request import Request, Source, split_name

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    RowGroups = list[tuple[pq.ParquetFile, int]]  # file, index of a row group in it

FILE_NAME = re.compile(r"(?P<split>[A-Za-z]+(?:_[A-Za-z]+)*)(?:[-_.]\d.*)?\.parquet")

# Largest number of row groups of a split to open for a limit of samples: a random draw over all files.
MAX_ROW_GROUPS = 64


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """Return the parquet files by split; empty if there are none."""
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
    """Return True if a folder or file of parquet holds texts and no images."""
    import pyarrow.parquet as pq

    files = parquet_files(path) if path.exists() else {}
    if not files:
        return False
    try:
        schema = pq.read_schema(next(iter(files.values()))[0])
    except (OSError, ValueError):  # the reader reports the error
        return False
    texts, images = CODECS[Modality.TEXT], CODECS[Modality.IMAGE]
    return any(texts.fits(field, None) for field in schema) and not any(images.fits(field, None) for field in schema)


def read_parquet(path: Path, request: Request) -> Source:
    """Read the samples and labels of all splits.

    Args:
        path: A parquet file, or a folder of them.
        request: The requested samples.

    Raises:
        UnusableInput: A file is broken, or holds no samples of the model's modality.
    """
    import pyarrow as pa

    splits, names, cut = {}, None, 0
    files = parquet_files(path)
    for name in files:
        try:
            splits[name], split_names, split_cut = _read_split(files[name], request.of_split(name, list(files)))
        except (pa.ArrowException, OSError) as error:
            raise UnusableInput(f"{path}: a file of its split {name} is not readable parquet ({error})") from None
        names, cut = names or split_names, cut + split_cut
    notes = CODECS[request.spec.modality].notes(cut, request.spec)
    return Source(path.resolve().name, splits, names, notes=notes)


def _read_split(files: list[Path], request: Request) -> tuple[Split, tuple[str, ...] | None, int]:
    """Return the samples, the names of their classes, and the number of cut samples."""
    import pyarrow.parquet as pq

    opened = [pq.ParquetFile(file) for file in files]
    try:
        column, label, names = _find_columns(opened[0].schema_arrow, files[0], request.spec.modality)
        groups = _draw_row_groups(opened, request)
        labels, names = _read_labels(groups, label, names, files[0])
        total = sum(file.metadata.row_group(group).num_rows for file, group in groups)
        rows = request.choose(total, labels)
        cells = ((f"{files[0]}: row {row} of {column!r}", value) for row, value in _read_cells(groups, column, rows))
        x, cut = CODECS[request.spec.modality].decode(cells, len(rows), request.spec)
        return Split(x, None if labels is None else labels[rows]), names, cut
    finally:
        for file in opened:
            file.close()


def _find_columns(schema: pa.Schema, where: Path, modality: Modality) -> tuple[str, str | None, tuple[str, ...] | None]:
    """Return the columns of the samples and the labels, and the class names in the hub's metadata of the file."""
    features = _hub_features(schema)
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    codec = CODECS[modality]
    columns = [name for name in schema.names if codec.fits(schema.field(name), kinds.get(name))]
    if not columns:
        raise UnusableInput(
            f"{where}: expected a column of {codec.column}, the model's inputs; got {', '.join(schema.names)}"
        )
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    labels += [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    if not labels:
        return columns[0], None, None
    names = features.get(labels[0], {}).get("names")
    return columns[0], labels[0], tuple(map(str, names)) if isinstance(names, list) else None


def _hub_features(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _draw_row_groups(files: list[pq.ParquetFile], request: Request) -> RowGroups:
    groups = [(file, group) for file in files for group in range(file.num_row_groups)]
    if request.limit is None or len(groups) <= MAX_ROW_GROUPS:
        return groups
    generator = torch.Generator().manual_seed(request.seed)
    drawn = torch.randperm(len(groups), generator=generator)[:MAX_ROW_GROUPS].sort().values
    return [groups[int(index)] for index in drawn]


def _read_labels(
    groups: RowGroups, column: str | None, names: tuple[str, ...] | None, where: Path
) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """Return the labels of the row groups (N,), or None; words become numbers in alphabetical order."""
    if column is None:
        return None, None
    values = [
        v for file, group in groups for v in file.read_row_group(group, columns=[column]).column(column).to_pylist()
    ]
    if all(value is None or value == -1 for value in values):  # the hub's mark of withheld labels
        return None, names
    if all(isinstance(value, str) for value in values):
        words = tuple(sorted(set(values)))
        order = {word: index for index, word in enumerate(words)}
        return torch.tensor([order[value] for value in values]), words
    if not all(isinstance(value, int) for value in values):
        raise UnusableInput(f"{where}: expected whole numbers or words in the column {column!r}, got other values")
    return torch.tensor([int(value) for value in values], dtype=torch.int64), names


def _read_cells(groups: RowGroups, column: str, rows: Tensor) -> Iterator[tuple[int, Any]]:
    """Yield numbers and values of ``rows`` (ascending), with one row group in memory at a time."""
    start = 0
    for file, group in groups:
        count = file.metadata.row_group(group).num_rows
        inside = rows[(rows >= start) & (rows < start + count)] - start
        if len(inside):
            cells = file.read_row_group(group, columns=[column]).column(column).take(inside.numpy())
            for index, cell in zip(inside.tolist(), cells, strict=True):
                yield start + index, cell.as_py()
        start += count
