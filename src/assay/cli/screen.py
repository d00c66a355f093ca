"""Lines, tables and progress on standard error, for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from assay.core.progress import Step, duration_in_words
from assay.io.display import escape_unprintable
from assay.sandbox import phases

if TYPE_CHECKING:
    from rich.console import Console

KEPT = "\N{NO-BREAK SPACE}\n"  # unprintable for Python, but safe in a table
LOG_INTERVAL = 60.0  # seconds between two lines of progress if standard error is not a terminal


def error_line(message: str) -> None:
    """Write ``assay: message`` as one line of standard error, with control characters escaped."""
    sys.stderr.write(f"assay: {escape_unprintable(' '.join(message.split()), keep=KEPT)}\n")


def console() -> Console:
    """Return standard error without any markup, as names may come from untrusted files."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def write(*lines: str, style: str = "") -> None:
    """Write lines without wrapping, with control characters escaped.

    Args:
        lines: The lines.
        style: A style of rich, for instance "yellow".
    """
    screen = console()
    for line in lines:
        screen.print(escape_unprintable(line, keep=KEPT), style=style, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Write a table.

    Args:
        title: The title, or "" for none.
        columns: Titles of the columns.
        rows: One text per column.
        right: Titles of the columns with right-aligned numbers.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape_unprintable(cell, keep=KEPT) for cell in row))
    console().print(grid)


@contextmanager
def progress(start: str, *, estimate: bool = True) -> Iterator[Step]:
    """Show a bar with an estimate of the time left; outside a terminal, one line a minute.

    Args:
        start: Text until the first step.
        estimate: Show the time left that follows from the fraction. False: the steps state it.

    Yields:
        A callback for each step and the completed fraction.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    screen = console()
    if not screen.is_terminal:
        yield _log_lines(estimate=estimate)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        *([TimeRemainingColumn()] if estimate else []),
    )
    with Progress(*columns, console=screen, transient=True) as bars:
        bar = bars.add_task(start, total=1.0)

        def step(name: str, fraction: float) -> None:
            phases.alive()
            bars.update(bar, description=escape_unprintable(name, keep=KEPT), completed=fraction)

        yield step


def _log_lines(*, estimate: bool) -> Step:
    """Return a callback that writes the progress as lines, ``LOG_INTERVAL`` seconds apart.

    Args:
        estimate: Add the time left that follows from the fraction.
    """
    start = last = time.monotonic()

    def step(name: str, fraction: float) -> None:
        nonlocal last
        phases.alive()
        now = time.monotonic()
        if now - last >= LOG_INTERVAL:
            last = now
            so_far = now - start
            left = so_far * (1 - fraction) / fraction if fraction else 0.0
            words = f", about {duration_in_words(left)} left" if estimate and fraction else ""
            write(f"{fraction:.0%} after {duration_in_words(so_far)}{words}: {name}")

    return step


@contextmanager
def spinner(name: str) -> Iterator[None]:
    """Show a bar for work without a known end.

    Args:
        name: Text before the bar.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        bars.add_task(name, total=None)
        yield
