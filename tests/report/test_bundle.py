"""Tests of the folder of reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from assay.report import write

REPORTS = {"report.html", "audit.json", "audit.sarif", "junit.xml", "statement.json"}


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_report_folder_holds_all_reports(make_audit, tmp_path):
    paths = write(make_audit("backdoored"), tmp_path / "new" / "out")
    assert set(paths) > REPORTS
    assert names(tmp_path / "new" / "out") == set(paths)
    json.loads(paths["audit.json"].read_text())
    image = next(path for name, path in paths.items() if name.endswith(".png"))
    with Image.open(image) as opened:
        assert opened.size == (32, 32)
    with np.load(next(path for name, path in paths.items() if name.endswith(".npz"))) as arrays:
        assert arrays["after"].shape == (6, 3, 32, 32)


def test_new_reports_replace_old_triggers_and_keep_other_files(make_audit, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    write(make_audit("backdoored"), tmp_path)
    (tmp_path / "triggers" / "mine.png").write_text("mine")
    write(make_audit("clean"), tmp_path)
    assert names(tmp_path) == {"mine.txt", "triggers/mine.png", *REPORTS}


def test_hostile_names_stay_in_the_folder(hostile, tmp_path):
    paths = write(hostile, tmp_path / "out")
    assert all(path.resolve().is_relative_to(tmp_path / "out") for path in paths.values())
