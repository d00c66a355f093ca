"""A matrix as a whole: a spec's cells into a store, and out of it again with their unique_entries."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from assay._version import __version__
from assay.bench import driver, worker
from assay.bench.cells import Cell, entries, with_needs
from assay.bench.cells import MatrixEntry
from assay.bench.executors import Executor
from assay.bench.records import FINAL, Record, Records, State
from assay.bench.spec import Spec
from assay.bench.spec_reader import parse_text
from assay.bench.store import Store
from assay.bench.unique_names import unique_entries
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup
from assay.io.object_store import Blobs
from assay.io.strict_yaml import MOST_BYTES

BLOBS = "models"
"""The folder of a store in which models are kept, where no other place is given."""


@dataclass(frozen=True)
class RunPlan:
    """What a run would do."""

    cells: int
    done: int
    failed: int  # and stay so, but for --retry-failed
    by_kind: Mapping[str, int]  # of those that are not done
    seconds: float  # of computing, by what such cells took before
    unknown: int  # cells of kinds of which nothing is known yet


def cells_of(matrix: Spec, *, only: str | None = None) -> dict[str, Cell]:
    """All cells by key; ``only``: that one and what it needs, by the start of its key."""
    wanted = [entry.cell for entry in entries(matrix)]
    if only is not None:
        if not only:
            raise UnusableInput("--only: expected the start of a cell's key, came nothing")
        wanted = [cell for cell in wanted if cell.key.startswith(only)]
        if not wanted:
            raise UnusableInput(f"--only {only}: no cell of this spec has a key that starts so")
    return with_needs(wanted)


def plan(cells: Mapping[str, Cell], store: Records | None) -> RunPlan:
    """What is left to do, and how long it takes, by what is in the store, if there is one."""
    states, means = (store.states(), store.mean_seconds()) if store is not None else ({}, {})
    left = [cell for key, cell in cells.items() if states.get(key) not in FINAL]
    kinds = sorted({cell.kind for cell in left})
    known = [means.get((cell.kind, cell.method)) for cell in left]
    return RunPlan(
        cells=len(cells),
        done=sum(states.get(key) in ("done", "invalid") for key in cells),
        failed=sum(states.get(key) == "failed" for key in cells),
        by_kind={kind: sum(cell.kind == kind for cell in left) for kind in kinds},
        seconds=sum(value for value in known if value is not None),
        unknown=sum(value is None for value in known),
    )


def run(
    matrix: Spec,
    cells: Mapping[str, Cell],
    store: Store,
    executor: Executor,
    *,
    blobs: str | None = None,
    retry_failed: bool = False,
    progress: Callable[[driver.RunProgress], None] = lambda now: None,
) -> dict[State, int]:
    """Do what is missing of ``cells``, which are all of the matrix or some of it. Returns how many ended how."""
    if retry_failed:
        store.again(cells)
    place = blobs or str((store.directory / BLOBS).absolute())
    Blobs(place).check()
    compute = partial(worker.run, folder=os.getcwd())
    return driver.run(cells, store, executor, blobs=place, work=compute, progress=progress)


def found(store: Records, name: str | None = None) -> list[tuple[MatrixEntry, Record]]:
    """Every cell of the specs in the store (or of the one called ``name``), with its place in the matrix.

    A cell of which the store has no record is waiting. Raises UnusableInput where there is no such spec, and where a
    spec has no record at all that this version could have made.
    """
    by_key = {record.key: record for record in store.records()}
    specs = _specs_of(store, name)
    for spec in specs:
        if not any(entry.cell.key in by_key for entry in entries(spec)):
            raise UnusableInput(
                f"{store.directory}: there is no record of the spec {spec.name!r} by assay {__version__} with torch "
                f"{torch.__version__}: report with the versions that ran it, or run it again"
            )
    return [(entry, by_key.get(entry.cell.key) or _waiting(entry.cell)) for entry in unique_entries(specs)]


def _specs_of(store: Records, name: str | None) -> list[Spec]:
    texts = store.specs()
    if not texts:
        raise UnusableInput(f"{store.directory}: the store is empty: run a matrix into it with `assay bench run`")
    if name is not None:
        texts = {name: lookup(name, texts, f"spec in {store.directory} called")}
    specs = []
    for called, text in texts.items():
        try:
            specs.append(parse_text(text))
        except UnusableInput as error:
            raise UnusableInput(
                f"{store.directory}: this assay does not understand the spec {called!r} in it, and may be older or "
                f"newer than the one that ran it: {error}"
            ) from None
    return specs


def _waiting(cell: Cell) -> Record:
    return Record(cell.key, cell.kind, cell.about(), "waiting")


def read_spec(path: Path) -> Spec:
    """The spec in a file. Raises UnusableInput where it cannot be read_spec or is no spec."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UnusableInput(f"{path}: expected a spec of at most {MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read_spec: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UnusableInput(f"{path}: is not text in UTF-8: {error.reason}") from None
    try:
        return parse_text(text)
    except UnusableInput as error:
        raise UnusableInput(f"{path}: {error}") from None
