"""Options of the workers, for commands with many jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from assay.bench.executors import Executor

Workers = Annotated[int | None, typer.Option(min=1, help="Processes, one thread each.", show_default="all cores")]
Ray = Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster: auto, or its address.")]
Artifacts = Annotated[
    str | None, typer.Option(metavar="URL", help="Address of the models for fsspec.", show_default="store")
]


def executor_of(workers: int, ray: str | None) -> Executor:
    """Return the executor: processes of this machine, or a Ray cluster.

    Args:
        workers: Number of processes.
        ray: Address of a Ray cluster, or None for processes.
    """
    from assay.bench import executors

    return executors.LocalExecutor(workers) if ray is None else executors.RayExecutor(ray)
