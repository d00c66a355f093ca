"""Reader of data sets on the Hugging Face hub; it streams them and fetches no more than the requested samples."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch

from assay.core.dataset import Split
from assay.core.errors import AssayError, UnusableInput, first_line
from assay.core.model import Modality
from assay.data.codecs import CODECS, LABEL_COLUMNS
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
        splits, names = {}, None
        for split, rows in streams.items():
            part = request.of_split(str(split), list(streams))
            splits[split_name(str(split))], split_names = read_stream(rows, part, f"{name} {split}")
            names = names or split_names
    except AssayError:
        raise
    except Exception as error:  # datasets, the hub client and the HTTP library raise kinds of their own
        raise UnusableInput(
            f"cannot read the data set {name} from the Hugging Face hub: {first_line(error)}. "
            "Fix: check the name and the network, or give a local path."
        ) from None
    return Source(name, splits, names)


def read_stream(rows: Any, request: Request, where: str) -> tuple[Split, tuple[str, ...] | None]:
    """Read one split.

    Args:
        rows: A ``datasets.IterableDataset`` with a column of images.
        request: The requested samples.
        where: Name of the split for error messages.

    Returns:
        The split and its class names.
    """
    import datasets

    features: Mapping[str, Any] = rows.features or {}
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise UnusableInput(
            f"{where}: expected a column of images, the only kind of hub data; got {', '.join(features)}"
        )
    labels = [column for column in LABEL_COLUMNS if column in features]
    labels += [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    rows = rows.select_columns([images[0], *labels[:1]]).cast_column(images[0], datasets.Image(decode=False))
    if request.limit is not None:
        rows = rows.shuffle(seed=request.seed, buffer_size=SHUFFLE_BUFFER)
    taken = list(islice(rows, request.limit))
    request.choose(len(taken), None)  # raises if they do not fit in memory
    cells = ((f"{where}: row {index}", row[images[0]]) for index, row in enumerate(taken))
    x, _ = CODECS[Modality.IMAGE].decode(cells, len(taken), request.image_spec)
    if not labels or any(row[labels[0]] in (None, -1) for row in taken):
        return Split(x, None), None
    names = getattr(features[labels[0]], "names", None)
    return Split(x, torch.tensor([int(row[labels[0]]) for row in taken])), tuple(names) if names else None
