"""Rows of the page's tables, in plain JSON types."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from assay.bench.cells import MatrixEntry
from assay.bench.intervals import Estimate
from assay.bench.leaderboard.board import Board, reason_of, state_of
from assay.bench.leaderboard.cell_text import is_rate
from assay.bench.records import Record
from assay.bench.statistics import AttackRow, DetectorRow, MitigationRow
from assay.report.formatting import display_text


def rows(board: Board) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table of the page, by table."""
    return {
        "attacks": [_attack(board, row) for row in board.attacks],
        "detectors": [_detector(board, row) for row in board.detectors],
        "mitigations": [_mitigation(board, row) for row in board.mitigations],
        "chains": list(_along_chains(board)),
        "records": list(_records(board)),
    }


def _attack(board: Board, row: AttackRow) -> dict[str, Any]:
    return {
        **_names(board, "measure", row),
        "planted": _estimate(row.planted_success),
        "asr": _estimate(row.attack_success),
        "control": _estimate(row.control),
        "ca": _estimate(row.clean_accuracy),
        "ra": _estimate(row.robust_accuracy),
        "models": row.valid,
    }


def _detector(board: Board, row: DetectorRow) -> dict[str, Any]:
    return {
        **_names(board, "detect", row, row.detector),
        "detector": display_text(row.detector),
        "asr": _estimate(row.attack_success),
        "auc": _estimate(row.auc),
        "above": _estimate(row.found_above_clean),
        "found5": _estimate(row.found_at_5),
        "found1": _estimate(row.found_at_1),
        "found": _estimate(row.found_itself),
        "alarms": _estimate(row.false_alarms_itself),
        "target": _estimate(row.right_target),
        "models": row.backdoored,
        "clean": row.clean,
        "abstained": row.abstained,
        "seconds": _round(row.seconds),
    }


def _mitigation(board: Board, row: MitigationRow) -> dict[str, Any]:
    return {
        **_names(board, "mitigate", row, row.mitigation),
        "mitigation": display_text(row.mitigation),
        "asr": _estimate(row.attack_success),
        "before": _estimate(row.success_before),
        "ca": _estimate(row.clean_accuracy),
        "ra": _estimate(row.robust_accuracy),
        "models": row.models,
        "seconds": _round(row.seconds),
    }


def _along_chains(board: Board) -> Iterator[dict[str, Any]]:
    """Yield attacks along chains, in the order of the chains, without the controls."""
    order = {chain.name: index for index, chain in enumerate(board.chains)}
    success = {(row.task, row.attack, row.chain): row.attack_success for row in board.measured}
    for row in sorted(board.measured, key=lambda row: (row.task, row.attack, order[row.chain])):
        if row.attack in board.controls:
            continue
        parent = board.chains[order[row.chain]].parent
        before = success.get((row.task, row.attack, parent)) if parent is not None else None
        asr = row.attack_success
        yield {
            **_names(board, "measure", row),
            "order": order[row.chain],
            "parent": None if parent is None else display_text(parent),
            "asr": _estimate(asr),
            "change": None if asr is None or before is None else _round(asr.value - before.value),
            "control": _estimate(row.control),
            "ca": _estimate(row.clean_accuracy),
            "models": row.valid,
        }


def _names(board: Board, kind: str, row: AttackRow | DetectorRow | MitigationRow, method: str = "") -> dict[str, Any]:
    place = (kind, row.task, row.chain, row.attack, method)
    return {
        "task": display_text(row.task),
        "chain": display_text(row.chain),
        "attack": display_text(row.attack),
        "states": dict(board.states[place]),
        "why": board.reasons.get(place, ""),
    }


def _records(board: Board) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    number = {name: index for index, name in enumerate(board.specs)}
    for entry, record in board.pairs:
        seen[record.key] += 1
        repeat = seen[record.key]  # chains with equal steps share their records
        row = _record(entry, record, record.key[:12] + (f"~{repeat}" if repeat > 1 else ""))
        yield {**row, "spec": number.get(entry.spec, 0)}


def _record(entry: MatrixEntry, record: Record, identity: str) -> dict[str, Any]:
    kind, result = entry.cell.kind, record.result or {}
    row = {
        "id": identity,
        "kind": kind,
        "task": display_text(entry.task),
        "chain": display_text(entry.chain),
        "attack": display_text(entry.attack),
        "detector": display_text(entry.cell.method) if kind == "detect" else None,
        "mitigation": display_text(entry.cell.method) if kind == "mitigate" else None,
        "seed": entry.cell.seed,
        "state": state_of(record),
        "ca": _rate(result.get("clean_accuracy")),
        "asr": _rate(result.get("attack_success")),
        "score": _round(result.get("score")),
        "abstained": result.get("status") == "abstained" or None,
        "seconds": _round(record.seconds),
        "why": display_text(reason_of(record), 200) or None,
        "place": display_text(record.place or "") or None,
    }
    return {name: value for name, value in row.items() if value is not None}


def _estimate(estimate: Estimate | None) -> list[float | None] | None:
    """Return value, low and high end with five digits. The CSV files have all digits."""
    return None if estimate is None else [_round(estimate.value), _round(estimate.low), _round(estimate.high)]


def _rate(rate: Any) -> list[float | None] | None:
    return [_round(value) for value in (rate["value"], *rate["interval"])] if is_rate(rate) else None


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
