"""``assay bench``: the matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import places, screen

if TYPE_CHECKING:
    from assay.bench.driver import Progress
    from assay.bench.executors import Executor
    from assay.bench.matrix import Plan
    from assay.bench.store import State

bench = typer.Typer(help="Attacks x chains x detectors x mitigations x seeds.", no_args_is_help=True)


@bench.callback()
def _group() -> None:
    """Keeps ``run`` a command of its own while it is the only one."""


StoreOption = Annotated[Path, typer.Option("--store", metavar="DIR", help="The folder of records and models.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes, one thread each.", show_default="all cores")]
Ray = Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster: auto, or its address.")]
Artifacts = Annotated[
    str | None, typer.Option(metavar="URL", help="Where models are kept, as fsspec writes it.", show_default="store")
]


@bench.command()
def run(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="What the matrix is made of; docs/bench.md.")],
    store: StoreOption = Path("assay-bench"),
    workers: Workers = None,
    ray: Ray = None,
    artifacts: Artifacts = None,
    only: Annotated[str | None, typer.Option(metavar="KEY", help="One cell, by the start of its key.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> int:
    """Do what is missing of a matrix; whatever stops it, the next run goes on from there."""
    with places.answering(None):
        from assay.bench import matrix
        from assay.bench.spec import parse_text
        from assay.bench.store import Store

        text = matrix.read_text(spec)
        places.check_folder(store, "--store")
        records = Store(store)
        slots = workers or os.cpu_count() or 1
        _show_plan(matrix.plan(matrix.cells_of(parse_text(text), only=only), records), slots)
        if dry_run:
            return 0
        executor = _executor(slots, ray)
        with screen.progress("starting") as step:

            def show(now: Progress) -> None:
                step(f"{now.done} of {now.total} cells; {now.last}"[:100], now.done / now.total)

            counts = matrix.run(
                text, records, executor, blobs=artifacts, only=only, retry_failed=retry_failed, progress=show
            )
        _show_counts(counts)
        screen.say(f"Records in {store}")
    return 0


def _executor(workers: int, ray: str | None) -> Executor:
    from assay.bench import executors

    return executors.Local(workers) if ray is None else executors.Ray(ray)


def _show_plan(plan: Plan, slots: int) -> None:
    left = plan.cells - plan.done
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan.by_kind.items())
    screen.say(f"{plan.cells:,} cells, {plan.done:,} done, {left:,} to do" + (f" ({kinds})" if kinds else ""))
    if left:
        minutes = plan.seconds / slots / 60
        rest = f", and {plan.unknown:,} cells of which nothing is known yet" if plan.unknown else ""
        screen.say(f"About {minutes:.1f} minutes on {slots} processes{rest}")


def _show_counts(counts: Mapping[State, int]) -> None:
    said = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    screen.say(f"Cells: {said}", style="yellow" if counts.get("failed") else "")
