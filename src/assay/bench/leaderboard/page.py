"""The leaderboard's page: script, styles and data inside, no server and no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from datetime import date
from importlib import resources
from typing import Any

from markupsafe import Markup

from assay._version import __version__
from assay.bench.leaderboard.commands import commands
from assay.bench.leaderboard.content import STATES, Board, rows
from assay.bench.leaderboard.details import band_text, details
from assay.bench.leaderboard.lines import charts
from assay.bench.leaderboard.tables import data_text, net_text, steps_text
from assay.bench.spec import Method
from assay.io.jsonable import jsonable
from assay.io.templates import template_environment
from assay.report.formatting import display_text

IN_SCRIPT = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
"""What could end a script element or, in old browsers, a string; JSON may spell them so."""

PACKAGE = "assay.bench.leaderboard"
SCRIPT = ("tools", "columns", "rows", "tables", "map", "record", "filters", "page")
"""The parts of the page's script, in this order: one script element, so that a part may use those before it."""

MEANINGS = {
    "done": "ran to the end",
    "invalid": "the attack missed its band when it was planted: in no average",
    "failed": "stopped with an error: in no average",
    "missing": "not run yet, or still running",
}

KINDS = {"measure": "models measured", "detect": "detector runs", "mitigate": "mitigations", "build": "models trained"}


def to_html(board: Board, *, title: str) -> str:
    """The page. Every string that comes from the records is escaped, and shown as text only."""
    tables = rows(board)
    lines, pictures = details(board.found)
    script = "\n".join(_source(PACKAGE, f"{part}.js") for part in SCRIPT)
    style = _source("assay.report", "report.css") + _source(PACKAGE, "leaderboard.css")
    again = [display_text(command, 1000) for command in commands(board.specs).values()]
    return (
        template_environment(PACKAGE)
        .get_template("leaderboard.html.j2")
        .render(
            title=display_text(title),
            version=__version__,
            today=date.today(),
            policy=_policy(script, style),
            script=Markup(script),
            style=Markup(style),
            board=script_json({"commands": again, **tables}),
            details=script_json(lines),
            pictures=script_json(pictures),
            counts=_counts(board),
            kinds=_kinds(board),
            band=_band(board),
            charts=charts(board),
            names=_names(board),
        )
    )


def script_json(value: Any) -> Markup:
    """``value`` as JSON that cannot end the script element that it stands in."""
    text = json.dumps(jsonable(value, not_finite="text"), allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(IN_SCRIPT))


def _policy(script: str, style: str) -> str:
    """Nothing may load, run or be styled but what is in the page; and the script may not make markup of text."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _source(package: str, name: str) -> str:
    return resources.files(package).joinpath("templates", name).read_text(encoding="utf-8")


def _counts(board: Board) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for states in board.states.values():
        counts.update(states)
    total = max(1, len(board.found))
    return [
        {"state": state, "count": counts[state], "share": counts[state] / total, "meaning": MEANINGS[state]}
        for state in STATES
    ]


def _kinds(board: Board) -> list[tuple[str, int, int]]:
    """What the records are, and how many of them are done."""
    every = Counter[str](entry.cell.kind for entry, _ in board.found)
    done = Counter[str](entry.cell.kind for entry, record in board.found if record.state == "done")
    return [(KINDS[kind], done[kind], count) for kind in KINDS if (count := every[kind])]


def _band(board: Board) -> str:
    bands = {entry.cell.valid for entry, _ in board.found if entry.cell.valid is not None}
    return "; or ".join(band_text(band) for band in sorted(bands, key=repr))


def _names(board: Board) -> list[tuple[str, list[tuple[str, str]]]]:
    """What the tasks, attacks, chains and mitigations of this matrix are made of."""
    tasks: dict[str, str] = {}
    attacks: dict[str, str] = {}
    mitigations: dict[str, str] = {}
    for entry, _ in board.found:
        cell = entry.cell
        tasks[entry.task] = f"{data_text(cell.task)}; {net_text(cell.task)}"
        if entry.attack not in attacks:
            attacks[entry.attack] = steps_text(_planting(board, entry.chain, cell.steps))
        if cell.kind == "mitigate":
            mitigations[cell.method] = steps_text(cell.repair)
    chains = {chain.name: steps_text(chain.steps) for chain in board.chains}
    groups = {"Tasks": tasks, "Attacks": attacks, "Chains": chains, "Mitigations": mitigations}
    return [
        (group, [(display_text(name), display_text(text, 600)) for name, text in members.items()])
        for group, members in groups.items()
        if members
    ]


def _planting(board: Board, chain: str, steps: tuple[Method, ...]) -> list[Method]:
    """The step that stands where the chain has a place for the attack."""
    skeleton = next(known.steps for known in board.chains if known.name == chain)
    return [step for step, place in zip(steps, skeleton, strict=False) if step != place]
