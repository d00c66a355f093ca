"""Page of a batch: one row per model, the most suspicious first, with links to the reports."""

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
from assay.batch.audits import REPORTS, AuditedModel
from assay.core.result import STATUSES
from assay.io.atomic import publish
from assay.io.csv import csv_text
from assay.io.display import escape_controls
from assay.io.templates import template_environment
from assay.report import formatting
from assay.report.page import TEMPLATES
from assay.report.view import TONES

SCHEMA = "assay.audits/1"
VERDICTS = ("backdoored", "failed", "inconclusive", "clean")  # in the order of the page

MARK_NOTE = "has assay's mark of a planted backdoor"

COLUMNS = (
    "model",
    "digest",
    "verdict",
    "status",
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
    """One model as texts."""

    name: str
    tone: str
    verdict: str
    p_value: str
    target: str
    strongest: str
    accuracy: str
    link: str
    note: str


def write(audited: Sequence[AuditedModel], directory: Path, *, command: str) -> dict[str, Path]:
    """Write index.html, audits.json and audits.csv, all or none.

    Args:
        audited: the models.
        directory: folder of the files.
        command: command for repeating the batch.

    Returns:
        The paths by file name.
    """
    documents = [document(entry) for entry in sorted(audited, key=_suspicion_order)]
    # Control and reordering characters become escapes, for spreadsheets.
    rows = [
        {name: escape_controls(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in documents
    ]
    head = {"schema": SCHEMA, "assay": __version__, "command": command, "counts": counts(audited)}
    return publish(
        directory,
        {
            "index.html": to_html(audited, command=command).encode("utf-8", "backslashreplace"),
            "audits.json": (json.dumps({**head, "models": documents}, indent=1) + "\n").encode(),
            "audits.csv": csv_text(rows, COLUMNS),
        },
    )


def counts(audited: Sequence[AuditedModel]) -> dict[str, int]:
    """Return the number of models with each of the four verdicts."""
    found = Counter(entry.verdict for entry in audited)
    return {verdict: found[verdict] for verdict in VERDICTS}


def document(entry: AuditedModel) -> dict[str, Any]:
    """Return one model in plain JSON types."""
    known = {
        **entry.result,
        "model": entry.model,
        "digest": entry.digest,
        "verdict": entry.verdict,
        "status": STATUSES.get(entry.verdict, "unknown"),  # a failed audit is no pass either
        "before": entry.before,
        "report": _link(entry) or None,
        "reason": entry.reason,
    }
    return {name: known.get(name) for name in COLUMNS}


def rows(audited: Sequence[AuditedModel]) -> list[Row]:
    """Return the models as texts, the most suspicious first."""
    return [_row(entry) for entry in sorted(audited, key=_suspicion_order)]


def to_html(audited: Sequence[AuditedModel], *, command: str) -> str:
    """Return the page. All names come from untrusted files, and are escaped.

    Args:
        audited: the models.
        command: command for repeating the batch.
    """
    return (
        template_environment(TEMPLATES)
        .get_template("audits.html.j2")
        .render(
            rows=rows(audited),
            counts=[
                (verdict, count, TONES.get(verdict, "none")) for verdict, count in counts(audited).items() if count
            ],
            total=len(audited),
            command=formatting.display_text(command, 1000),
            version=__version__,
            today=date.today(),
        )
    )


def _suspicion_order(entry: AuditedModel) -> tuple[int, float, str]:
    p_value = entry.result.get("p_value")
    return VERDICTS.index(entry.verdict), 1.0 if p_value is None else float(p_value), entry.model


def _row(entry: AuditedModel) -> Row:
    result = entry.result
    target, p_value, accuracy = result.get("target"), result.get("p_value"), result.get("accuracy")
    name = result.get("target_name")
    notes = [
        entry.reason,
        "audited by an earlier run" if entry.before else "",
        MARK_NOTE if result.get("planted") else "",
    ]
    return Row(
        name=formatting.display_text(entry.model),
        tone=TONES.get(entry.verdict, "none"),
        verdict=entry.verdict,
        p_value=formatting.DASH if p_value is None else formatting.format_p_value(p_value),
        target=formatting.DASH if target is None else formatting.display_text(str(name or f"class {target}"), 60),
        strongest=formatting.display_text(str(result.get("strongest") or formatting.DASH), 60),
        accuracy=formatting.DASH if accuracy is None else formatting.format_percent(accuracy),
        link=_link(entry),
        note=formatting.display_text("; ".join(filter(None, notes)), 400),
    )


def _link(entry: AuditedModel) -> str:
    """Return the path of the model's report, relative to the page; empty for a model of an earlier run."""
    if entry.before or entry.record is None or not entry.result.get("files"):
        return ""
    return quote(f"{REPORTS}/{entry.record.key}/report.html")
