"""The page of many audits: one row a model, the worst first, each with a link to its own report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from assay._version import __version__
from assay.batch.audits import REPORTS, Audited
from assay.io.atomic import publish
from assay.io.csv import csv_text
from assay.io.templates import template_environment
from assay.report import formatting
from assay.report.page import TEMPLATES
from assay.report.view import TONES

SCHEMA = "assay.audits/1"
VERDICTS = ("backdoored", "failed", "inconclusive", "clean")
"""The worst first."""

COLUMNS = (
    "model",
    "digest",
    "verdict",
    "p_value",
    "target",
    "target_name",
    "strongest",
    "accuracy",
    "classes",
    "format",
    "planted",
    "seconds",
    "before",
    "report",
    "reason",
)


@dataclass(frozen=True)
class Row:
    """One model, in texts."""

    name: str
    tone: str
    verdict: str
    p_value: str
    target: str
    strongest: str
    accuracy: str
    link: str
    note: str


def write(answers: Sequence[Audited], directory: Path, *, command: str) -> dict[str, Path]:
    """Write index.html, audits.json and audits.csv into ``directory``, all or none; the paths by those names."""
    documents = [document(answer) for answer in sorted(answers, key=_worst_first)]
    head = {"schema": SCHEMA, "assay": __version__, "command": command, "counts": counts(answers)}
    return publish(
        directory,
        {
            "index.html": to_html(answers, command=command).encode("utf-8", "backslashreplace"),
            "audits.json": (json.dumps({**head, "models": documents}, indent=1) + "\n").encode(),
            "audits.csv": csv_text(documents, COLUMNS),
        },
    )


def counts(answers: Sequence[Audited]) -> dict[str, int]:
    """How many models got which verdict; all four are there."""
    found = Counter(answer.verdict for answer in answers)
    return {verdict: found[verdict] for verdict in VERDICTS}


def document(answer: Audited) -> dict[str, Any]:
    """One model for machines."""
    known = {
        **answer.result,
        "model": answer.model,
        "digest": answer.digest,
        "verdict": answer.verdict,
        "before": answer.before,
        "report": _link(answer) or None,
        "reason": answer.reason,
    }
    return {name: known.get(name) for name in COLUMNS}


def rows(answers: Sequence[Audited]) -> list[Row]:
    """The models in texts, the worst first."""
    return [_row(answer) for answer in sorted(answers, key=_worst_first)]


def to_html(answers: Sequence[Audited], *, command: str) -> str:
    """The page. Every name comes from a stranger's file, and is escaped and shown as text only."""
    return (
        template_environment(TEMPLATES)
        .get_template("audits.html.j2")
        .render(
            rows=rows(answers),
            counts=[
                (verdict, count, TONES.get(verdict, "none")) for verdict, count in counts(answers).items() if count
            ],
            total=len(answers),
            command=formatting.display_text(command, 1000),
            version=__version__,
            today=date.today(),
        )
    )


def _worst_first(answer: Audited) -> tuple[int, float, str]:
    p_value = answer.result.get("p_value")
    return VERDICTS.index(answer.verdict), 1.0 if p_value is None else float(p_value), answer.model


def _row(answer: Audited) -> Row:
    result = answer.result
    target, p_value, accuracy = result.get("target"), result.get("p_value"), result.get("accuracy")
    name = result.get("target_name")
    notes = [answer.reason, "audited by an earlier run" if answer.before else "", _mark(result.get("planted"))]
    return Row(
        name=formatting.display_text(answer.model),
        tone=TONES.get(answer.verdict, "none"),
        verdict=answer.verdict,
        p_value=formatting.DASH if p_value is None else formatting.format_p_value(p_value),
        target=formatting.DASH if target is None else formatting.display_text(str(name or f"class {target}"), 60),
        strongest=formatting.display_text(str(result.get("strongest") or formatting.DASH), 60),
        accuracy=formatting.DASH if accuracy is None else formatting.format_percent(accuracy),
        link=_link(answer),
        note=formatting.display_text("; ".join(filter(None, notes)), 400),
    )


def _mark(planted: object) -> str:
    return "bears assay's own mark of a planted backdoor" if planted else ""


def _link(answer: Audited) -> str:
    """Where the model's own report lies, from the page; none of an earlier run's."""
    if answer.before or answer.record is None or not answer.result.get("files"):
        return ""
    return quote(f"{REPORTS}/{answer.record.key}/report.html")
