"""``assay bench``: a matrix of attacks, chains, detectors, mitigations and seeds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.workers import Artifacts, Ray, Workers, executor_of
from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from assay.bench.driver import RunProgress
    from assay.bench.matrix import RunPlan
    from assay.bench.records import State

MAX_REASONS = 5  # of failures, on the screen

bench = typer.Typer(help="Run a matrix of attacks, chains, detectors, mitigations and seeds.", no_args_is_help=True)


StoreOption = Annotated[Path, typer.Option("--store", metavar="DIR", help="Folder for the records and models.")]


@bench.command()
def run(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The matrix, see docs/bench.md.")],
    store: StoreOption = Path("assay-bench"),
    workers: Workers = None,
    ray: Ray = None,
    artifacts: Artifacts = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Seeds with commas, in place of those of the spec.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="KEY", help="Run one cell, by the start of its key.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the missing cells and run none.")] = False,
) -> int:
    """Run the missing cells of a matrix. An interrupted run continues."""
    with outputs.json_output(None):
        from assay.bench import initial, matrix
        from assay.bench.records import RECORDS, open_existing
        from assay.bench.spec_reader import read_spec
        from assay.bench.store import Store

        read = read_spec(spec, seeds=options.sizes(seeds, "--seeds"))
        cells = matrix.cells_of(read, only=only)
        with screen.spinner("reading the data"):
            digests = initial.digests(read)
        if dry_run:  # writes no files and creates no store
            with closing(open_existing(store)) if (store / RECORDS).exists() else nullcontext() as earlier:
                _show_plan(matrix.plan_run(cells, earlier), workers or os.cpu_count() or 1)
            return 0
        outputs.check_folder(store, "--store")
        if artifacts is not None and artifacts.startswith("memory:"):
            raise UnusableInput(
                "--artifacts: expected an address for all workers, got memory. Fix: use a folder or an object store."
            )
        records = Store(store)
        records.check_inputs(digests)
        if records.add_spec(read.name, read.text):
            screen.write(
                f"The store had a spec {read.name} with another text. The report uses the new spec.",
                style="yellow",
            )
        executor = executor_of(workers or os.cpu_count() or 1, ray)
        _show_plan(matrix.plan_run(cells, records), executor.slots)
        with screen.progress("starting") as step:

            def show(now: RunProgress) -> None:
                step(f"{now.done} of {now.total} cells; {now.last}"[:100], now.done / now.total)

            counts = matrix.run(cells, records, executor, blobs=artifacts, retry_failed=retry_failed, progress=show)
        summary = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        screen.write(f"Cells: {summary}", style="yellow" if counts.get("failed") else "")
        failed = (record for record in records.records() if record.key in cells and record.state == "failed")
        _show_failures(record.error or "" for record in failed)
        screen.write(f"Records in {store}")
    return 2 if counts.get("failed") else 0


@bench.command()
def report(
    store: StoreOption = Path("assay-bench"),
    out: options.Out = Path("assay-leaderboard"),
    spec: Annotated[
        str | None, typer.Option(metavar="NAME", help="One matrix, by the name of its spec.", show_default="all")
    ] = None,
) -> int:
    """Write the leaderboard as an offline page, with its tables as CSV, JSON and Parquet."""
    with outputs.json_output(None):
        from assay.bench import matrix
        from assay.bench.records import open_existing

        with closing(open_existing(store)) as records:
            outputs.check_folder(out)
            found = matrix.entry_records(records, spec)
            specs = {name: text for name, text in records.specs().items() if spec in (None, name)}
        from assay.bench.leaderboard import write_leaderboard

        with screen.spinner("making the page"):
            files = write_leaderboard(found, out, title=", ".join(specs), specs=specs)
        _show_report(Counter(record.state for _, record in found), files["index.html"])
    return 0


@bench.command("export")
def export_records(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, with one line of JSON per cell.")],
    store: StoreOption = Path("assay-bench"),
    spec: Annotated[
        str | None, typer.Option(metavar="NAME", help="The spec's name, if the store has several.", show_default=False)
    ] = None,
) -> int:
    """Write the records of one matrix, without models, to a text file for version control."""
    with outputs.json_output(None):
        import torch

        from assay._version import __version__
        from assay.bench.archive import write_archive
        from assay.bench.records import open_existing

        with closing(open_existing(store)) as records:
            names = list(records.specs())
            if spec is None and len(names) != 1:
                raise UnusableInput(f"expected one spec in {store}, got {len(names)}. Fix: choose one with --spec NAME")
            origin = {"assay": __version__, "torch": torch.__version__}
            count, missing = write_archive(records, spec or names[0], file, origin=origin)
        screen.write(f"{count:,} records in {file}; {missing:,} cells of the matrix are missing")
    return 0


@bench.command("import")
def import_records(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of `assay bench export`.")],
    store: StoreOption = Path("assay-bench"),
) -> int:
    """Add the records of an exported matrix to a store, for a report or to continue the run."""
    with outputs.json_output(None):
        from assay.bench.archive import import_archive
        from assay.bench.store import Store

        outputs.check_folder(store, "--store")
        with closing(Store(store)) as records, records:
            added = import_archive(file, records)
        screen.write(f"{added:,} records added to {store}")
    return 0


def _show_plan(plan: RunPlan, slots: int) -> None:
    left = plan.cells - plan.done - plan.failed
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan.by_kind.items())
    failed = f", {plan.failed:,} failed before (--retry-failed runs them again)" if plan.failed else ""
    screen.write(f"{plan.cells:,} cells, {plan.done:,} done{failed}, {left:,} to do" + (f" ({kinds})" if kinds else ""))
    if left and plan.unknown == left:
        screen.write("Duration: not known, as no such cell has run in this store")
    elif left:
        minutes = plan.seconds / slots / 60
        rest = f", and {plan.unknown:,} cells of unknown duration" if plan.unknown else ""
        screen.write(f"About {minutes:.1f} minutes on {slots} cores{rest}")


def _show_failures(reasons: Iterable[str]) -> None:
    """Show the reasons of failures, without the cells that lacked a failed one."""
    from assay.bench.driver import DEPENDENCY_ENDED

    causes = Counter(reason for reason in reasons if not reason.startswith(DEPENDENCY_ENDED))
    for reason, count in causes.most_common(MAX_REASONS):
        screen.write(f"{count:,} failed: {reason}", style="yellow")
    if len(causes) > MAX_REASONS:
        screen.write(f"and {len(causes) - MAX_REASONS:,} other reasons (all: `assay bench report`)")


def _show_report(states: Mapping[State, int], page: Path) -> None:
    from assay.bench.records import FINAL
    from assay.cli.loading import shown

    missing = sum(count for state, count in states.items() if state not in FINAL)
    parts = [f"{states[state]:,} {state}" for state in FINAL if states[state]] + [f"{missing:,} missing"] * bool(
        missing
    )
    screen.write(f"Cells: {', '.join(parts)}", f"Page: {shown(page)}")
