"""A matrix as a whole: a spec's cells into a store, and out of it again with their places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.bench import driver, spec, work
from assay.bench.cells import Cell, Entry, entries, with_needs
from assay.bench.executors import Executor
from assay.bench.spec import Spec
from assay.bench.store import FINAL, Record, State, Store
from assay.errors import UnusableInput

BLOBS = "models"
"""The folder of a store in which models are kept, where no other place is given."""


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    cells: int
    done: int
    by_kind: Mapping[str, int]  # of those that are not done
    seconds: float  # of computing, by what such cells took before
    unknown: int  # cells of kinds of which nothing is known yet


def cells_of(matrix: Spec, *, only: str | None = None) -> dict[str, Cell]:
    """All cells by key; ``only``: that one and what it needs, by the start of its key."""
    wanted = [entry.cell for entry in entries(matrix)]
    if only is not None:
        wanted = [cell for cell in wanted if cell.key.startswith(only)]
        if not wanted:
            raise UnusableInput(f"--only {only}: no cell of this spec has a key that starts so")
    return with_needs(wanted)


def plan(cells: Mapping[str, Cell], store: Store) -> Plan:
    """What is left to do, and how long it takes."""
    states, means = store.states(), store.mean_seconds()
    left = [cell for key, cell in cells.items() if states.get(key) not in FINAL]
    kinds = sorted({cell.kind for cell in left})
    known = [means.get((cell.kind, cell.method)) for cell in left]
    return Plan(
        cells=len(cells),
        done=len(cells) - len(left),
        by_kind={kind: sum(cell.kind == kind for cell in left) for kind in kinds},
        seconds=sum(value for value in known if value is not None),
        unknown=sum(value is None for value in known),
    )


def run(
    text: str,
    store: Store,
    executor: Executor,
    *,
    blobs: str | None = None,
    only: str | None = None,
    retry_failed: bool = False,
    progress: Callable[[driver.Progress], None] = lambda now: None,
) -> dict[State, int]:
    """Do what is missing of the spec in ``text``. Returns how many cells ended how."""
    matrix = spec.parse_text(text)
    cells = cells_of(matrix, only=only)
    store.add_spec(matrix.name, text)
    if retry_failed:
        store.again(cells)
    place = blobs or str((store.directory / BLOBS).absolute())
    return driver.run(cells, store, executor, blobs=place, work=work.run, progress=progress)


def found(store: Store, name: str | None = None) -> list[tuple[Entry, Record]]:
    """Every cell of the specs in the store (or of the one called ``name``), with its place in the matrix."""
    texts = store.specs()
    if name is not None and name not in texts:
        raise UnusableInput(f"{store.directory}: there is no spec {name!r}; there are: {', '.join(texts) or 'none'}")
    chosen = texts.values() if name is None else [texts[name]]
    by_key = {record.key: record for record in store.records()}
    places = {entry: None for text in chosen for entry in entries(spec.parse_text(text))}
    return [(entry, by_key[entry.cell.key]) for entry in places if entry.cell.key in by_key]


def read_text(path: Path) -> str:
    """The text of a spec. Raises UnusableInput where it cannot be read or is no spec."""
    try:
        if path.stat().st_size > spec.MOST_BYTES:
            raise UnusableInput(f"{path}: expected a spec of at most {spec.MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UnusableInput(f"{path}: is not text in UTF-8: {error.reason}") from None
    try:
        spec.parse_text(text)
    except UnusableInput as error:
        raise UnusableInput(f"{path}: {error}") from None
    return text
