"""Reader of data sets on the Hugging Face hub; it streams them and fetches no more than the requested samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import AssayError, UnusableInput, first_line
from assay.core.model import Modality
from assay.data.codecs import CODECS
from assay.data.columns import Columns, Table, choose_columns
from assay.data.label_values import RawLabels, number_labels, parse_labels
from assay.data.request import Request, Source, split_name
from assay.io.hub_ids import hub_id

# Rows in memory for the shuffle of a stream.
SHUFFLE_BUFFER = 1000


def data_hub_id(text: str) -> str | None:
    """Return the hub id in ``hf:owner/name[:configuration]`` or ``owner/name``; None if ``text`` names a local path."""
    return hub_id(text, local_suffixes={".npz", ".parquet"})


def read_hub(text: str, request: Request) -> Source:
    """Read a data set from the hub. The data set's own code is never run.

    Args:
        text: ``owner/name`` or ``owner/name:configuration``.
        request: The requested samples.

    Raises:
        UnusableInput: The data set is missing, unreachable or unsuitable.
    """
    import datasets

    name, _, configuration = text.partition(":")
    try:
        streams = datasets.load_dataset(name, configuration or None, streaming=True)
        rows, columns = {}, None
        for split, stream in streams.items():
            columns = columns or _find_columns(stream, request, f"{name} {split}")
            rows[split_name(str(split))] = _read_stream(stream, columns, request.of_split(str(split), list(streams)))
    except AssayError:
        raise
    except Exception as error:  # datasets, the hub client and the HTTP library raise kinds of their own
        raise UnusableInput(
            f"cannot read the data set {name} from the Hugging Face hub: {_reason(error)}. "
            "Fix: check the name and the network, or give a local path."
        ) from None
    if columns is None:
        raise UnusableInput(f"{name}: expected splits of samples, got none")
    return _to_source(name, rows, columns, request)


def _reason(error: Exception) -> str:
    """Return the first line of an error; all of it if it lists the configurations to choose from."""
    text = " ".join(str(error).split())
    return text[:400].rstrip(".") if "onfig name" in text else first_line(error)


@dataclass(frozen=True)
class _Rows:
    """Streamed rows of one split."""

    rows: Sequence[Mapping[str, Any]]
    class_names: tuple[str, ...] | None


def _to_source(name: str, found: Mapping[str, _Rows], columns: Columns, request: Request) -> Source:
    """Return the rows, and their labels in one numbering over all splits."""
    raw: dict[str, RawLabels | None] = {}
    for split, part in found.items():
        values = [] if columns.label is None else [row[columns.label] for row in part.rows]
        raw[split] = parse_labels(values, f"{name} {split}: column {columns.label!r}") if values else None
    numbered = number_labels(raw, {split: part.class_names for split, part in found.items()})

    def decode(split: str, rows: Tensor) -> tuple[Tensor, Counter[str]]:
        cells = ((f"{name} {split}: row {row}", found[split].rows[row][columns.samples]) for row in rows.tolist())
        return CODECS[Modality.IMAGE].decode(cells, len(rows), request.image_spec)

    return Source(
        name,
        {split: Split(torch.arange(len(part.rows)), numbered.labels[split]) for split, part in found.items()},
        decode,
        numbered.class_names,
        numbered.names_from,
        notes=columns.notes,
        kind="data set of the hub",
        labels_from="" if not any(raw.values()) else f"column {columns.label!r}",
        left_out=+Counter({"samples without a label": sum(each.missing for each in raw.values() if each is not None)}),
    )


def _find_columns(rows: Any, request: Request, where: str) -> Columns:
    """Return the columns of images and labels.

    Args:
        rows: A ``datasets.IterableDataset``.
        request: The requested samples.
        where: Name of the split for error messages.
    """
    import datasets

    features: Mapping[str, Any] = rows.features or {}
    table = Table(
        where,
        list(features),
        [column for column, feature in features.items() if isinstance(feature, datasets.Image)],
        [column for column, feature in features.items() if isinstance(feature, datasets.Value)],
        {column: tuple(f.names or ()) for column, f in features.items() if isinstance(f, datasets.ClassLabel)},
        lambda column: 0,  # a count would read the whole stream
    )
    return choose_columns(table, request, "images, the only kind of hub data")


def _read_stream(rows: Any, columns: Columns, request: Request) -> _Rows:
    """Read the requested rows of one split.

    Args:
        rows: A ``datasets.IterableDataset``.
        columns: The columns to read.
        request: The requested samples.
    """
    import datasets

    names = getattr((rows.features or {}).get(columns.label), "names", None)
    kept = [column for column in (columns.samples, columns.label) if column is not None]
    rows = rows.select_columns(kept).cast_column(columns.samples, datasets.Image(decode=False))
    if request.limit is not None:
        rows = rows.shuffle(seed=request.seed, buffer_size=SHUFFLE_BUFFER)
    taken = list(islice(rows, request.limit))
    request.check_size(len(taken))
    return _Rows(taken, tuple(names) if names else None)
