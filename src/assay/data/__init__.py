"""Data of any common layout -> ``Task``, its pictures resized for the model, its texts as the model's token numbers.

Splits keep their names (``valid``, ``val`` and ``dev`` become validation). An audit draws its clean samples from the
split *calibration*. Where the data has none, it is carved without overlap, at random and evenly over the classes: from
train, else validation, else the first split; a fifth of that split, at most 2,048 pictures, or with ``limit`` as many
as that, at most half. Data with a single split of fewer than 64 pictures is not cut: all of it is for calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import InputSpec, TextSpec
from assay.data.labels import align, unlabelled
from assay.data.readers.generated import is_synthetic, read_synthetic
from assay.data.readers.hf_hub import data_hub_id, read_hub
from assay.data.readers.image_folder import read_folder
from assay.data.readers.npz import read_npz
from assay.data.readers.parquet import parquet_files, read_parquet
from assay.data.request import Request, Source
from assay.data.splits import carve_calibration, checked

__all__ = ["load"]


def load(
    source: str | Path | None,
    spec: InputSpec,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    labels: bool = True,
    fewest_classes: int = 2,
) -> Task:
    """Loads pictures (N, C, H, W) float32 in [0, 1] or token numbers (N, L) int64 as ``spec`` says, and labels (N,).

    ``source``: a folder of parquet files in the hub's layout, a folder of pictures (in one folder a class, also below
    train, test, ...; or flat, with names that end in ``_<label>``), a ``.npz`` file, a hub id (``hf:owner/name``, or
    ``owner/name`` where no such path exists), ``signs``, ``signs:<classes>``, ``digits``; None: signs without labels.
    Texts are read from parquet files only.
    ``num_classes`` and ``class_names`` are the model's: labels are checked against them, and class folders matched by
    name. At most ``limit`` samples a split are read, drawn with ``seed``. ``labels`` False: the data's labels are left
    out, and a folder's names and subfolders say nothing. Labels of fewer than ``fewest_classes`` are refused. What was
    guessed stands in the task's ``notes``. Raises ``UnusableInput`` where the data cannot be used or does not fit the
    model.
    """
    if limit is not None and limit < 1:
        raise UnusableInput(f"limit: expected at least 1 sample a split, came {limit}")
    request = Request(spec, limit, seed, num_classes, labels)
    try:
        found = _read(source, request)
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or source}: {error.strerror or error}") from None
    splits = checked(found.splits, found.name)
    if not labels:
        splits = unlabelled(splits)
    aligned, names, notes = align(splits, found, num_classes, class_names, fewest=fewest_classes)
    return Task(found.name, carve_calibration(aligned, limit=limit, seed=seed), names, (*found.notes, *notes))


def _read(source: str | Path | None, request: Request) -> Source:
    text = "" if source is None else str(source)
    if isinstance(request.spec, TextSpec):
        return _read_texts(text, request)
    if source is None or is_synthetic(text):
        return read_synthetic(text, request)
    repository = data_hub_id(text)
    if repository is not None:
        return read_hub(repository, request)
    path = Path(text)
    if not path.exists():
        raise UnusableInput(
            f"no such data: {text} (expected a folder, a .parquet or .npz file, a hub id, signs, signs:100 or digits)"
        )
    if path.is_file() and path.suffix.lower() == ".npz":
        return read_npz(path, request)
    if parquet_files(path):
        return read_parquet(path, request)
    if path.is_dir():
        return read_folder(path, request)
    raise UnusableInput(
        f"{path}: expected a folder, a .parquet or an .npz file, came a {path.suffix or 'nameless'} file"
    )


def _read_texts(text: str, request: Request) -> Source:
    path = Path(text)
    if not text or not path.exists() or not parquet_files(path):
        came = f"no parquet files at {text}" if text else "no data"
        raise UnusableInput(f"expected texts for a model of text, as a parquet file or a folder of them; {came}")
    return read_parquet(path, request)
