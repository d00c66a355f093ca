"""What the page shows of a bench, in plain types: rows for its tables, and what each record has to say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assay.bench.cells import Entry
from assay.bench.leaderboard.chains import Chain, chains_of, measured_rows
from assay.bench.leaderboard.tables import is_rate
from assay.bench.records import FINAL, Record
from assay.bench.statistics import AttackRow, DetectorRow, Figure, Found, MitigationRow
from assay.report.formatting import display_text

STATES = ("done", "invalid", "failed", "missing")

Place = tuple[str, str, str, str, str]  # kind, task, chain, attack, method


@dataclass(frozen=True)
class Board:
    """Records and the rows that were made of them."""

    found: Sequence[Found]
    specs: Sequence[str]  # the names of those that ask for the records
    attacks: Sequence[AttackRow]
    detectors: Sequence[DetectorRow]
    mitigations: Sequence[MitigationRow]

    @cached_property
    def chains(self) -> list[Chain]:
        return chains_of(entry for entry, _ in self.found)

    @cached_property
    def controls(self) -> set[str]:
        """The names of the attacks that plant nothing, and so have no success."""
        return {entry.attack for entry, _ in self.found if entry.cell.is_clean}

    @cached_property
    def along(self) -> list[AttackRow]:
        """The attacks over every measured model."""
        return measured_rows(self.found)

    @cached_property
    def states(self) -> dict[Place, Counter[str]]:
        """How many records of each place ended how."""
        counts: dict[Place, Counter[str]] = {}
        for entry, record in self.found:
            counts.setdefault(_place(entry), Counter())[state_of(record)] += 1
        return counts

    @cached_property
    def reasons(self) -> dict[Place, str]:
        """The first reason of each place why a record of it has no figure."""
        reasons: dict[Place, str] = {}
        for entry, record in self.found:
            if reason := why(record):
                reasons.setdefault(_place(entry), display_text(reason, 300))
        return reasons


def rows(board: Board) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table of the page."""
    return {
        "attacks": [_attack(board, row) for row in board.attacks],
        "detectors": [_detector(board, row) for row in board.detectors],
        "mitigations": [_mitigation(board, row) for row in board.mitigations],
        "chains": list(_along(board)),
        "records": list(_records(board)),
    }


def state_of(record: Record) -> str:
    """Its state in the page's words: what has not ended is missing."""
    return record.state if record.state in FINAL else "missing"


def why(record: Record) -> str:
    """Why a record has no figure, or none that counts."""
    result = record.result or {}
    return str(record.error or result.get("why_invalid") or result.get("reason") or "")


def _attack(board: Board, row: AttackRow) -> dict[str, Any]:
    return {
        **_names(board, "measure", row),
        "planted": _figure(row.planted_success),
        "asr": _figure(row.attack_success),
        "control": _figure(row.control),
        "ca": _figure(row.clean_accuracy),
        "ra": _figure(row.robust_accuracy),
        "models": row.valid,
    }


def _detector(board: Board, row: DetectorRow) -> dict[str, Any]:
    return {
        **_names(board, "detect", row, row.detector),
        "detector": display_text(row.detector),
        "asr": _figure(row.attack_success),
        "auc": _figure(row.auc),
        "above": _figure(row.found_above_clean),
        "found5": _figure(row.found_at_5),
        "found1": _figure(row.found_at_1),
        "found": _figure(row.found_itself),
        "alarms": _figure(row.false_alarms_itself),
        "target": _figure(row.right_target),
        "models": row.backdoored,
        "clean": row.clean,
        "abstained": row.abstained,
        "seconds": _round(row.seconds),
    }


def _mitigation(board: Board, row: MitigationRow) -> dict[str, Any]:
    return {
        **_names(board, "mitigate", row, row.mitigation),
        "mitigation": display_text(row.mitigation),
        "asr": _figure(row.attack_success),
        "before": _figure(row.success_before),
        "ca": _figure(row.clean_accuracy),
        "ra": _figure(row.robust_accuracy),
        "models": row.models,
        "seconds": _round(row.seconds),
    }


def _along(board: Board) -> Iterator[dict[str, Any]]:
    """Attacks along chains, in the chains' order; without the control, which has no attack success."""
    order = {chain.name: index for index, chain in enumerate(board.chains)}
    success = {(row.task, row.attack, row.chain): row.attack_success for row in board.along}
    for row in sorted(board.along, key=lambda row: (row.task, row.attack, order[row.chain])):
        if row.attack in board.controls:
            continue
        parent = board.chains[order[row.chain]].parent
        before = success.get((row.task, row.attack, parent)) if parent is not None else None
        asr = row.attack_success
        yield {
            **_names(board, "measure", row),
            "order": order[row.chain],
            "parent": None if parent is None else display_text(parent),
            "asr": _figure(asr),
            "change": None if asr is None or before is None else _round(asr.value - before.value),
            "control": _figure(row.control),
            "ca": _figure(row.clean_accuracy),
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
    for entry, record in board.found:
        seen[record.key] += 1
        again = seen[record.key]  # two chains of the same steps share their records
        row = _record(entry, record, record.key[:12] + (f"~{again}" if again > 1 else ""))
        yield {**row, "spec": number.get(entry.spec, 0)}


def _record(entry: Entry, record: Record, identity: str) -> dict[str, Any]:
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
        "why": display_text(why(record), 200) or None,
        "place": display_text(record.place or "") or None,
    }
    return {name: value for name, value in row.items() if value is not None}


def _place(entry: Entry) -> Place:
    return entry.cell.kind, entry.task, entry.chain, entry.attack, entry.cell.method


def _figure(figure: Figure | None) -> list[float | None] | None:
    """Value, low, high; all the digits are in the CSV files."""
    return None if figure is None else [_round(figure.value), _round(figure.low), _round(figure.high)]


def _rate(rate: Any) -> list[float | None] | None:
    return [_round(value) for value in (rate["value"], *rate["interval"])] if is_rate(rate) else None


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
