"""What people see: lines, tables and progress on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from assay.core.progress import Step
from assay.io.display import escape_unprintable

if TYPE_CHECKING:
    from rich.console import Console

SPACES = "\N{NO-BREAK SPACE}\n"
"""Not printable as Python counts, but harmless in a table; ``error_line`` has no line breaks left."""

LOG_EVERY = 60.0
"""Seconds between two lines of progress where the screen is no terminal."""


def error_line(message: str) -> None:
    """``assay: message`` on one line of standard error, control characters spelled out."""
    sys.stderr.write(f"assay: {escape_unprintable(' '.join(message.split()), keep=SPACES)}\n")


def console() -> Console:
    """Standard error. Nothing is read as markup: names come from strangers' files."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(*lines: str, style: str = "") -> None:
    """Lines for people, not wrapped, control characters spelled out."""
    screen = console()
    for line in lines:
        screen.print(escape_unprintable(line, keep=SPACES), style=style, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table; the columns named in ``right`` hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape_unprintable(cell, keep=SPACES) for cell in row))
    console().print(grid)


@contextmanager
def progress(start: str) -> Iterator[Step]:
    """A bar with an estimate of the time left, in a log a line a minute: yields what takes each step and the share."""
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
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bars:
        bar = bars.add_task(start, total=1.0)

        def step(what: str, share: float) -> None:
            bars.update(bar, description=escape_unprintable(what, keep=SPACES), completed=share)

        yield step


def _lines() -> Step:
    """What a bar would show, as lines with ``LOG_EVERY`` seconds between them."""
    start = last = time.monotonic()

    def step(what: str, share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LOG_EVERY:
            last = now
            left = (now - start) * (1 - share) / share if share else 0.0
            say(f"{share:.0%} after {(now - start) / 60:.0f} min, about {left / 60:.0f} more: {what}")

    return step


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A bar for work that cannot say how far it is."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        bars.add_task(what, total=None)
        yield
