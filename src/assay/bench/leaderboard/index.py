"""Index page over several leaderboards: one row per matrix, with a link to its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from assay._version import __version__
from assay.bench.leaderboard.board import STATES, state_of
from assay.bench.leaderboard.page_parts import PACKAGE, security_policy, style_sheet
from assay.bench.statistics import EntryRecord
from assay.io.atomic import publish
from assay.io.templates import template_environment
from assay.report.formatting import display_text

MAX_NAMES = 200  # characters of the list of tasks or attacks in a row


@dataclass(frozen=True)
class MatrixSummary:
    """One row of the index."""

    name: str
    page: str  # path of the matrix's page, relative to the index
    cells: int
    states: dict[str, int]  # number of cells in each state, in the order of the page
    tasks: tuple[str, ...]
    attacks: tuple[str, ...]

    @classmethod
    def of(cls, name: str, page: str, pairs: Sequence[EntryRecord]) -> MatrixSummary:
        """Return the summary of a matrix.

        Args:
            name: name of the matrix.
            page: path of its page, relative to the index.
            pairs: every cell of the matrix with its record.
        """
        counts = Counter(state_of(record) for _, record in pairs)
        return cls(
            name,
            page,
            len(pairs),
            {state: counts[state] for state in STATES if counts[state]},
            tuple(dict.fromkeys(entry.task for entry, _ in pairs)),
            tuple(dict.fromkeys(entry.attack for entry, _ in pairs)),
        )


def write_index(matrices: Sequence[MatrixSummary], directory: Path) -> Path:
    """Write ``index.html`` into ``directory`` and return its path.

    Args:
        matrices: the rows, in the order of the page.
        directory: folder with the pages of the matrices.

    Raises:
        UnusableInput: the file cannot be written.
    """
    style = style_sheet()
    total: Counter[str] = Counter()
    for matrix in matrices:
        total.update(matrix.states)
    rows = [
        {
            "name": display_text(matrix.name),
            "link": quote(matrix.page),
            "cells": matrix.cells,
            "states": matrix.states,
            "tasks": display_text(", ".join(matrix.tasks), MAX_NAMES),
            "attacks": display_text(", ".join(matrix.attacks), MAX_NAMES),
        }
        for matrix in matrices
    ]
    html = (
        template_environment(PACKAGE)
        .get_template("index.html.j2")
        .render(
            rows=rows,
            cells=sum(matrix.cells for matrix in matrices),
            total={state: total[state] for state in STATES if total[state]},
            version=__version__,
            today=date.today(),
            policy=security_policy(style),
            style=Markup(style),
        )
    )
    return publish(directory, {"index.html": html.encode("utf-8", "backslashreplace")})["index.html"]
