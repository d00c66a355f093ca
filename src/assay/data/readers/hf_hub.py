"""Data sets of the Hugging Face hub, streamed: only as much is fetched as is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch

from assay.core.dataset import Split
from assay.core.errors import AssayError, UnusableInput, first_line
from assay.data.images import decode_all
from assay.data.readers.parquet import LABEL_COLUMNS
from assay.data.request import Request, Source, split_name
from assay.io.hub_ids import hub_id

BUFFER = 1000  # rows in memory from which a shuffled stream draws


def data_hub_id(text: str) -> str | None:
    """The hub id that ``text`` means, with ``:configuration`` if given; None where it can be meant as a path."""
    return hub_id(text, local_suffixes={".npz", ".parquet"})


def read_hub(text: str, request: Request) -> Source:
    """Reads ``owner/name`` or ``owner/name:configuration``; the data set's own code is never run."""
    import datasets

    name, _, configuration = text.partition(":")
    try:
        found = datasets.load_dataset(name, configuration or None, streaming=True)
        splits, names = {}, None
        for split, rows in found.items():
            part = request.of_split(str(split), list(found))
            splits[split_name(str(split))], listed = read_stream(rows, part, f"{name} {split}")
            names = names or listed
    except AssayError:
        raise
    except Exception as error:  # datasets, the hub client and the HTTP library raise kinds of their own
        raise UnusableInput(
            f"cannot read the data set {name} from the Hugging Face hub: {first_line(error)}; "
            "check the name and the network, or give a local path"
        ) from None
    return Source(name, splits, names)


def read_stream(rows: Any, request: Request, where: str) -> tuple[Split, tuple[str, ...] | None]:
    """One split, a ``datasets.IterableDataset`` with a column of pictures, and its class names."""
    import datasets

    features: Mapping[str, Any] = rows.features or {}
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise UnusableInput(
            f"{where}: expected a column of pictures, came {', '.join(features)}; only image data for now"
        )
    labels = [column for column in LABEL_COLUMNS if column in features]
    labels += [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    rows = rows.select_columns([images[0], *labels[:1]]).cast_column(images[0], datasets.Image(decode=False))
    if request.limit is not None:
        rows = rows.shuffle(seed=request.seed, buffer_size=BUFFER)
    taken = list(islice(rows, request.limit))
    request.choose(len(taken), None)  # raises where they would not fit in memory
    pictures = ((f"{where} row {index}", _content(row[images[0]], where)) for index, row in enumerate(taken))
    x = decode_all(pictures, len(taken), request.image_spec)
    if not labels or any(row[labels[0]] in (None, -1) for row in taken):
        return Split(x, None), None
    names = getattr(features[labels[0]], "names", None)
    return Split(x, torch.tensor([int(row[labels[0]]) for row in taken])), tuple(names) if names else None


def _content(cell: Any, where: str) -> bytes:
    if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes):
        raise UnusableInput(f"{where}: a row holds no picture; expected its bytes")
    return cell["bytes"]
