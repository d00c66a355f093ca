"""Committed matrices: each is complete and matches its specification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.bench.matrix import cells_of
from assay.bench.records import FINAL
from assay.bench.spec_reader import parse_text

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KEPT = sorted((BENCHMARKS / "results" / "matrices").glob("*.jsonl"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_committed_matrix_has_every_cell_of_its_spec(path: Path) -> None:
    head, *rows = map(json.loads, path.read_text().splitlines())
    spec = (BENCHMARKS / "specs" / f"{path.stem}.yaml").read_text()
    assert parse_text(spec) == parse_text(head["spec"])
    assert {row["cell"] for row in rows} == {cell.content for cell in cells_of(parse_text(spec)).values()}
    assert {row["state"] for row in rows} <= set(FINAL)


def test_committed_matrices_exist() -> None:
    assert KEPT
