"""The page of a batch: order, exit codes, and harmless hostile names."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from assay.batch import page
from assay.batch.audits import AuditedModel
from assay.bench.records import Record
from assay.cli.audit_many import exit_code

HOSTILE = "<script>alert(1)</script>\u202e"


def answer(model: str, verdict: str, *, before: bool = False, **fields: Any) -> AuditedModel:
    result = {"verdict": verdict, "reason": f"because of {verdict}", "files": ["report.html"], **fields}
    return AuditedModel(model, "0" * 64, Record("k" * 64, "audit", {}, "done", result), before=before)


ANSWERS = [
    answer("good", "clean", p_value=0.5, accuracy=0.9),
    answer("late", "backdoored", p_value=0.015, target=3, target_name=HOSTILE, planted="badnets"),
    answer("odd", "inconclusive", p_value=0.3, target=None),
    AuditedModel(f"=1+2{HOSTILE}", "", None, "cannot read it"),
    answer("first", "backdoored", p_value=0.01, target=7),
    answer("old", "backdoored", p_value=0.02, before=True),
]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["clean", "inconclusive", "failed", "backdoored"], 1),
        (["clean", "inconclusive", "failed"], 2),
        (["inconclusive", "clean"], 3),
        (["clean"], 0),
    ],
)
def test_exit_code_is_that_of_worst_verdict(verdicts: list[str], code: int) -> None:
    assert exit_code([answer("m", verdict) for verdict in verdicts]) == code
    assert exit_code([answer("old", "backdoored", before=True), *(answer("m", v) for v in verdicts)]) == code


def test_most_suspicious_models_come_first() -> None:
    assert [row.name for row in page.rows(ANSWERS)][:3] == ["first", "late", "old"]
    assert [row.verdict for row in page.rows(ANSWERS)][3:] == ["failed", "inconclusive", "clean"]
    assert page.counts(ANSWERS) == {"backdoored": 3, "failed": 1, "inconclusive": 1, "clean": 1}


def test_rows_show_all_fields() -> None:
    first, late, old, failed, _, good = page.rows(ANSWERS)
    assert good.accuracy.startswith("90")
    assert (first.target, first.link) == ("class 7", f"reports/{'k' * 64}/report.html")
    assert "mark of a planted backdoor" in late.note
    assert (old.link, "earlier run" in old.note) == ("", True)
    assert (failed.p_value, failed.link, failed.note) == ("–", "", "cannot read it")


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    files = page.write(ANSWERS, tmp_path, command=f"assay audit-many {HOSTILE}")
    html = files["index.html"].read_text()
    assert "<script" not in html
    assert "\u202e" not in html
    assert html.count("&lt;script&gt;") >= 3
    rows = list(csv.DictReader(files["audits.csv"].read_text().splitlines()))
    assert rows[3]["model"].startswith("'=")
    document = json.loads(files["audits.json"].read_text())
    assert document["schema"] == page.SCHEMA
    assert [model["verdict"] for model in document["models"]][:3] == ["backdoored"] * 3
    assert set(document["models"][0]) == set(page.COLUMNS)
