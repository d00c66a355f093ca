"""A whole matrix: run the cells of a specification into a store, and read them from it with their positions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from assay._version import __version__
from assay.bench import driver
from assay.bench.cells import Cell, MatrixEntry, entries, with_needs
from assay.bench.executors import Executor
from assay.bench.records import FINAL, Record, Records, State
from assay.bench.spec import Spec
from assay.bench.store import Store
from assay.bench.unique_names import unique_entries
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup
from assay.io.object_store import ObjectStore

MODELS_FOLDER = "models"  # folder of a store for models, if no other place is given


@dataclass(frozen=True)
class RunPlan:
    """Work of a run, and its estimated time."""

    cells: int
    done: int
    failed: int  # earlier; only a run with ``retry_failed`` repeats them
    by_kind: Mapping[str, int]  # cells that are not done
    seconds: float  # of computing, estimated from earlier cells of the same kind and method
    unknown: int  # cells without an estimate


def cells_of(matrix: Spec, *, only: str | None = None) -> dict[str, Cell]:
    """Return all cells by key.

    Args:
        matrix: the specification.
        only: start of the keys of the wanted cells. The result includes the cells that these depend on.

    Raises:
        UnusableInput: no key starts with ``only``.
    """
    wanted = [entry.cell for entry in entries(matrix)]
    if only is not None:
        wanted = [cell for cell in wanted if only and cell.key.startswith(only)]
        if not wanted:
            raise UnusableInput(f"expected the start of a cell's key: no cell of this spec has a key like {only!r}")
    return with_needs(wanted)


def plan_run(cells: Mapping[str, Cell], store: Records | None) -> RunPlan:
    """Return the remaining work.

    Args:
        cells: all cells of the run, by key.
        store: earlier records, for the estimate; None before the first run.
    """
    states, means = (store.states(), store.mean_seconds()) if store is not None else ({}, {})
    left = [cell for key, cell in cells.items() if states.get(key) not in FINAL]
    estimates = [means.get((cell.kind, cell.method)) for cell in left]
    return RunPlan(
        cells=len(cells),
        done=sum(states.get(key) in ("done", "invalid") for key in cells),
        failed=sum(states.get(key) == "failed" for key in cells),
        by_kind={kind: sum(cell.kind == kind for cell in left) for kind in sorted({cell.kind for cell in left})},
        seconds=sum(value for value in estimates if value is not None),
        unknown=sum(value is None for value in estimates),
    )


def run(
    cells: Mapping[str, Cell],
    store: Store,
    executor: Executor,
    *,
    blobs: str | None = None,
    retry_failed: bool = False,
    progress: Callable[[driver.RunProgress], None] = lambda now: None,
) -> dict[State, int]:
    """Compute the cells without a result.

    Args:
        cells: cells by key, with their dependencies.
        store: the records.
        executor: runs the cells.
        blobs: place of the models, as fsspec writes it; None: a folder of the store.
        retry_failed: also repeat failed cells.
        progress: called after each cell.

    Returns:
        The number of cells in each final state.
    """
    from assay.bench import worker  # imports every method; reports do without

    if retry_failed:
        store.requeue_failed(cells)
    place = blobs or str((store.directory / MODELS_FOLDER).absolute())
    ObjectStore(place).check_writable()
    compute = partial(worker.run, folder=os.getcwd())
    return driver.run(cells, store, executor, blobs=place, work=compute, progress=progress)


def entry_records(store: Records, name: str | None = None) -> list[tuple[MatrixEntry, Record]]:
    """Return every cell of the specifications in the store with its record and its position in the matrix.

    A cell without a record is *waiting*.

    Args:
        store: the records.
        name: name of one specification; None: all of them.

    Raises:
        UnusableInput: there is no such specification, or no record of it by the installed versions.
    """
    by_key = {record.key: record for record in store.records()}
    specs = _specs_of(store, name)
    for spec in specs:
        if not any(entry.cell.key in by_key for entry in entries(spec)):
            raise UnusableInput(
                f"{store.directory}: there is no record of the spec {spec.name!r} by assay {__version__} with torch "
                f"{torch.__version__}. Fix: report with the versions that ran it, or run it again"
            )
    pairs = []
    for entry in unique_entries(specs):
        cell = entry.cell
        pairs.append((entry, by_key.get(cell.key) or Record(cell.key, cell.kind, cell.about(), "waiting")))
    return pairs


def _specs_of(store: Records, name: str | None) -> list[Spec]:
    from assay.bench.spec_reader import parse_text  # imports the registry, with every method

    texts = store.specs()
    if not texts:
        raise UnusableInput(f"{store.directory}: the store is empty. Fix: run a matrix into it with `assay bench run`")
    if name is not None:
        texts = {name: lookup(name, texts, f"spec in {store.directory} called")}
    specs = []
    for spec_name, text in texts.items():
        try:
            specs.append(parse_text(text))
        except UnusableInput as error:
            raise UnusableInput(
                f"{store.directory}: this assay cannot read the spec {spec_name!r} there, which another version may "
                f"have written: {error}"
            ) from None
    return specs
