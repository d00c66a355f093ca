"""The leaderboard as one HTML page with script, styles and data inside."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date
from typing import Any

from markupsafe import Markup

from assay._version import __version__
from assay.bench.leaderboard.board import STATES, Board
from assay.bench.leaderboard.cell_text import data_text, initial_model_text, steps_text
from assay.bench.leaderboard.commands import commands
from assay.bench.leaderboard.content import rows
from assay.bench.leaderboard.details import criteria_text, details
from assay.bench.leaderboard.page_parts import PACKAGE, page_script, security_policy, style_sheet
from assay.bench.leaderboard.success_charts import charts
from assay.bench.spec import Method
from assay.io.jsonable import jsonable
from assay.io.templates import template_environment
from assay.report.formatting import display_text

# Characters that could end a script element or, in old browsers, a string; JSON may escape them.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}

MEANINGS = {
    "done": "ran to the end",
    "invalid": "the planted attack missed its criteria: in no average",
    "failed": "stopped with an error: in no average",
    "missing": "not run yet, or still running",
}

KINDS = {"measure": "models measured", "detect": "detector runs", "mitigate": "mitigations", "build": "models trained"}


def to_html(board: Board, *, title: str) -> str:
    """Return the page. All text from the records is escaped.

    Args:
        board: the records.
        title: title of the page.
    """
    lines, images = details(board.pairs)
    script, style = page_script(), style_sheet()
    repeat = [display_text(command, 1000) for command in commands(board.specs).values()]
    return (
        template_environment(PACKAGE)
        .get_template("leaderboard.html.j2")
        .render(
            title=display_text(title),
            version=__version__,
            today=date.today(),
            policy=security_policy(style, script),
            script=Markup(script),
            style=Markup(style),
            board=script_json({"commands": repeat, **rows(board)}),
            details=script_json(lines),
            pictures=script_json(images),
            counts=_state_counts(board),
            kinds=_kind_counts(board),
            criteria=_criteria(board),
            charts=charts(board),
            names=_names(board),
        )
    )


def script_json(value: Any) -> Markup:
    """Return ``value`` as JSON, with escapes against the end of the script element around it."""
    text = json.dumps(jsonable(value, not_finite="text"), allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))


def _state_counts(board: Board) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for states in board.states.values():
        counts.update(states)
    total = max(1, len(board.pairs))
    return [
        {"state": state, "count": counts[state], "fraction": counts[state] / total, "meaning": MEANINGS[state]}
        for state in STATES
    ]


def _kind_counts(board: Board) -> list[tuple[str, int, int]]:
    """Return the kinds of records, each with the number of finished ones and of all."""
    total = Counter[str](entry.cell.kind for entry, _ in board.pairs)
    done = Counter[str](entry.cell.kind for entry, record in board.pairs if record.state == "done")
    return [(KINDS[kind], done[kind], count) for kind in KINDS if (count := total[kind])]


def _criteria(board: Board) -> str:
    different = {entry.cell.valid for entry, _ in board.pairs if entry.cell.valid is not None}
    return "; or ".join(criteria_text(criteria) for criteria in sorted(different, key=repr))


def _names(board: Board) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the definitions of the tasks, attacks, chains and mitigations of this matrix."""
    skeletons = {chain.name: chain.steps for chain in board.chains}
    tasks: dict[str, str] = {}
    attacks: dict[str, str] = {}
    mitigations: dict[str, str] = {}
    for entry, _ in board.pairs:
        cell = entry.cell
        given = cell.task.given is not None
        model_text = "given models" if given else initial_model_text(cell.task)
        tasks.setdefault(entry.task, f"{data_text(cell.task)}; {model_text}")
        if given:
            attacks.setdefault(entry.attack, "given models")
        elif entry.attack not in attacks:
            skeleton = skeletons[entry.chain]
            planting: list[Method] = [step for step, place in zip(cell.steps, skeleton, strict=False) if step != place]
            attacks[entry.attack] = steps_text(planting)
        if cell.kind == "mitigate":
            mitigations[cell.method] = steps_text(cell.repair)
    chains = {name: steps_text(steps) for name, steps in skeletons.items()}
    groups = {"Tasks": tasks, "Attacks": attacks, "Chains": chains, "Mitigations": mitigations}
    return [
        (group, [(display_text(name), display_text(text, 600)) for name, text in members.items()])
        for group, members in groups.items()
        if members
    ]
