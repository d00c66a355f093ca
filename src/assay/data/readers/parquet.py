"""Reader of parquet files in the hub's layout: ``train-00000-of-00001.parquet``, in the folder or one below it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Modality
from assay.data.codecs import CODECS
from assay.data.columns import Columns, Table, choose_columns
from assay.data.foreign import one_line_errors
from assay.data.image_files import folders_in
from assay.data.label_values import RawLabels, number_labels, parse_labels
from assay.data.request import KNOWN_SPLITS, SPLIT_SYNONYMS, Request, Source, split_name
from assay.io.files import check_plain_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    RowGroups = list[tuple[pq.ParquetFile, int]]  # file, index of a row group in it

FILE_NAME = re.compile(r"(?P<split>[A-Za-z]+(?:_[A-Za-z]+)*)(?:[-_.]\d.*)?\.parquet", re.IGNORECASE)

# Largest number of row groups of a split to open for a limit of samples: a random draw over all files.
MAX_ROW_GROUPS = 64

READABLE = "readable parquet"


@dataclass(frozen=True)
class _SplitFiles:
    """Open files of one split, with the row groups to read."""

    name: str
    paths: Sequence[Path]
    files: Sequence[pq.ParquetFile]
    groups: RowGroups

    @property
    def samples(self) -> int:
        """Number of samples in the row groups to read."""
        return sum(file.metadata.row_group(group).num_rows for file, group in self.groups)

    @property
    def total(self) -> int:
        """Number of samples in all files."""
        return sum(file.metadata.num_rows for file in self.files)


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """Return the parquet files by split; empty if there are none.

    Args:
        path: A file, or a folder with files in it, in its folder data, in one other folder, or in folders of splits.

    Raises:
        UnusableInput: Several folders have parquet files: configurations of one data set.
    """
    if path.is_file():
        return {"train": [path]} if path.suffix.lower() == ".parquet" else {}
    if not path.is_dir():
        return {}
    own = _files_in(path)
    if own:
        return own
    below = {
        folder.name: found for folder in folders_in(path) if (found := _files_in(folder) or _split_folders(folder))
    }
    parts = {name: found for name, found in below.items() if name.lower() in {*KNOWN_SPLITS, *SPLIT_SYNONYMS}}
    if parts:
        return {split_name(name): [file for group in parts[name].values() for file in group] for name in parts}
    if "data" in below or len(below) < 2:
        return below.get("data") or next(iter(below.values()), {})
    names = ", ".join(sorted(below))
    raise UnusableInput(
        f"{path}: expected parquet files of one configuration, got several folders of them ({names}). "
        f"Fix: give one of the folders, for instance {path / sorted(below)[0]}."
    )


def only_texts(path: Path) -> bool:
    """Return True if a folder or file of parquet holds texts and no images."""
    import pyarrow.parquet as pq

    files = parquet_files(path) if path.exists() else {}
    if not files:
        return False
    try:
        first = next(iter(files.values()))[0]
        check_plain_file(first)
        with one_line_errors(first, READABLE):
            schema = pq.read_schema(first)
    except UnusableInput:  # the reader reports the error
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
    found = parquet_files(path)
    left_out = _unused_files(path, found)
    with ExitStack() as stack:
        opened = [_open(stack, name, files, request) for name, files in found.items()]
        columns = _find_columns(opened, request)
        raw, names = {}, {}
        for part in opened:
            raw[part.name] = _read_labels(part, columns.label)
            names[part.name] = _class_list(part, columns.label)
        numbered = number_labels(raw, names, _all_words(opened, columns.label, raw))
        splits = {part.name: Split(torch.arange(part.samples), numbered.labels[part.name]) for part in opened}

    def decode(split: str, rows: Tensor) -> tuple[Tensor, Counter[str]]:
        with ExitStack() as stack, one_line_errors(f"{path}: split {split}", READABLE):
            part = _open(stack, split, found[split], request)
            cells = (
                (f"{part.paths[0]}: row {row} of {columns.samples!r}", value)
                for row, value in _read_cells(part.groups, columns.samples, rows)
            )
            return CODECS[request.spec.modality].decode(cells, len(rows), request.spec)

    left_out["samples without a label"] += sum(labels.missing for labels in raw.values() if labels is not None)
    left_out += Counter({f"unused columns ({', '.join(columns.unused)[:200]})": len(columns.unused)})
    return Source(
        path.resolve().name,
        splits,
        decode,
        numbered.class_names,
        numbered.names_from,
        notes=columns.notes,
        kind="parquet file" if path.is_file() else "folder of parquet files",
        labels_from="" if columns.label is None or not any(raw.values()) else f"column {columns.label!r}",
        totals={part.name: part.total for part in opened},
        left_out=+left_out,
    )


def _files_in(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files in one folder by split."""
    splits: dict[str, list[Path]] = {}
    for file in sorted(entry for entry in folder.iterdir() if entry.suffix.lower() == ".parquet"):
        if file.name.startswith(".") or file.is_dir():
            continue
        match = FILE_NAME.fullmatch(file.name)
        splits.setdefault(split_name(match["split"]) if match else "train", []).append(file)
    return splits


def _split_folders(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files in folders of splits, as the hub's converter writes them: train/0000.parquet."""
    parts = {split_name(part.name): part for part in folders_in(folder)}
    found = {name: [file for files in _files_in(part).values() for file in files] for name, part in parts.items()}
    return {name: files for name, files in found.items() if files}


def _unused_files(path: Path, found: Mapping[str, Sequence[Path]]) -> Counter[str]:
    """Count the files in the folders of a data set that are not read."""
    if path.is_file():
        return Counter()
    used = {file for files in found.values() for file in files}
    folders = {path, *(file.parent for file in used), *(entry for entry in path.iterdir() if entry.is_dir())}
    unused = [file for folder in folders for file in folder.iterdir() if file.is_file() and file not in used]
    shown = Counter(file.suffix.lower() or "no suffix" for file in unused if not file.name.startswith("."))
    return (
        Counter({f"files of other kinds ({', '.join(sorted(shown))})"[:200]: sum(shown.values())})
        if shown
        else Counter()
    )


def _open(stack: ExitStack, name: str, paths: Sequence[Path], request: Request) -> _SplitFiles:
    """Open the files of one split, until ``stack`` closes them."""
    import pyarrow.parquet as pq

    files = []
    for path in paths:
        check_plain_file(path)
        with one_line_errors(path, READABLE):
            files.append(stack.enter_context(pq.ParquetFile(path)))
            files[-1].schema_arrow  # noqa: B018  raises for a damaged schema
    return _SplitFiles(name, paths, files, _draw_row_groups(files, request))


def _find_columns(splits: Sequence[_SplitFiles], request: Request) -> Columns:
    """Return the columns of samples and labels, the same in all files."""
    first, codec = splits[0], CODECS[request.spec.modality]
    where, schema = first.paths[0], first.files[0].schema_arrow
    with one_line_errors(where, READABLE):
        kinds = {name: f.get("_type") for name, f in _hub_features(schema).items() if isinstance(f, dict)}
        lists = {name: names for name in schema.names if (names := _class_list(first, name)) is not None}
        lists |= {name: () for name, kind in kinds.items() if kind == "ClassLabel" and name not in lists}

        def count_classes(column: str) -> int:
            values = {str(value) for part in splits for value in _column(part, column)}
            numbers = [int(value) for value in values if value.isdecimal()]
            return max(numbers) + 1 if len(numbers) == len(values) and numbers else len(values)

        table = Table(
            str(where),
            schema.names,
            [name for name in schema.names if codec.fits(schema.field(name), kinds.get(name))],
            [field.name for field in schema if _holds_values(field.type)],
            lists,
            count_classes,
        )
        columns = choose_columns(table, request, codec.column)
        if len(set(schema.names)) < len(schema.names):
            raise UnusableInput(f"{where}: expected columns of different names, got {', '.join(schema.names)}")
    for part in splits:
        for path, file in zip(part.paths, part.files, strict=True):
            for column in filter(None, (columns.samples, columns.label)):
                if column not in file.schema_arrow.names:
                    raise UnusableInput(
                        f"{path}: expected the column {column!r} of {where.name}, got "
                        f"{', '.join(file.schema_arrow.names)}"
                    )
    return columns


def _holds_values(kind: pa.DataType) -> bool:
    """Return True for a column of words or whole numbers."""
    import pyarrow.types as types

    tests = (types.is_integer, types.is_string, types.is_large_string, types.is_dictionary, types.is_boolean)
    return any(test(kind) for test in tests)


def _class_list(part: _SplitFiles, column: str | None) -> tuple[str, ...] | None:
    """Return the class names of a column in the hub's metadata; the files of one split agree, or it is an error."""
    if column is None:
        return None
    found = []
    for file in part.files:
        feature = _hub_features(file.schema_arrow).get(column)
        names = feature.get("names") if isinstance(feature, dict) else None
        found.append(tuple(map(str, names)) if isinstance(names, list) else None)
    if len(set(found)) > 1:
        raise UnusableInput(
            f"{part.paths[0].parent}: expected the same class names in all files of the split {part.name}, got "
            f"different lists for the column {column!r}"
        )
    return found[0]


def _hub_features(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _draw_row_groups(files: Sequence[pq.ParquetFile], request: Request) -> RowGroups:
    groups = [(file, group) for file in files for group in range(file.num_row_groups)]
    if request.limit is None or len(groups) <= MAX_ROW_GROUPS:
        return groups
    generator = torch.Generator().manual_seed(request.seed)
    drawn = torch.randperm(len(groups), generator=generator)[:MAX_ROW_GROUPS].sort().values
    return [groups[int(index)] for index in drawn]


def _column(part: _SplitFiles, column: str) -> list[Any]:
    """Return the values of a column in the drawn row groups."""
    with one_line_errors(f"{part.paths[0]}: column {column!r}", READABLE):
        return [v for file, group in part.groups for v in _chunk(file, group, column).to_pylist()]


def _chunk(file: pq.ParquetFile, group: int, column: str) -> pa.ChunkedArray:
    """Return one column of one row group; a struct counts as one column."""
    return file.read_row_group(group, columns=[column]).column(column)


def _read_labels(part: _SplitFiles, column: str | None) -> RawLabels | None:
    """Return the labels in the drawn row groups, or None."""
    if column is None:
        return None
    return parse_labels(_column(part, column), f"{part.paths[0]}: column {column!r}")


def _all_words(
    splits: Sequence[_SplitFiles], column: str | None, raw: Mapping[str, RawLabels | None]
) -> frozenset[str]:
    """Return the words of all row groups if labels are words: a draw of row groups may lack a class."""
    words: set[str] = set()
    for part in splits:
        labels = raw[part.name]
        if column is None or labels is None or not labels.are_words:
            continue
        complete = replace(part, groups=[(file, group) for file in part.files for group in range(file.num_row_groups)])
        values = labels.values if len(complete.groups) == len(part.groups) else _column(complete, column)
        words |= {value if isinstance(value, str) else str(value) for value in values if value is not None}
    return frozenset(words)


def _read_cells(groups: RowGroups, column: str, rows: Tensor) -> Iterator[tuple[int, Any]]:
    """Yield numbers and values of ``rows`` (ascending), with one row group in memory at a time."""
    start = 0
    for file, group in groups:
        count = file.metadata.row_group(group).num_rows
        inside = rows[(rows >= start) & (rows < start + count)] - start
        if len(inside):
            cells = _chunk(file, group, column)  # its method ``take`` imports pandas, half a second
            for index in inside.tolist():
                yield start + index, cells[index].as_py()
        start += count
