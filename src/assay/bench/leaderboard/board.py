"""Records of a leaderboard, with rows and orders for all its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from assay.bench.cells import MatrixEntry
from assay.bench.leaderboard.chains import ChainNode, order_chains
from assay.bench.records import FINAL, Record
from assay.bench.statistics import (
    AttackRow,
    DetectorRow,
    EntryRecord,
    MitigationRow,
    attack_rows,
    detector_rows,
    mitigation_rows,
)
from assay.report.formatting import display_text

STATES = ("done", "invalid", "failed", "missing")  # in the order of the page

Place = tuple[str, str, str, str, str]  # kind, task, chain, attack, method


@dataclass(frozen=True)
class Board:
    """Records of one or more matrices, and their rows."""

    pairs: Sequence[EntryRecord]
    specs: Sequence[str]  # names of the specifications
    attacks: Sequence[AttackRow]
    detectors: Sequence[DetectorRow]
    mitigations: Sequence[MitigationRow]

    @classmethod
    def of(cls, pairs: Sequence[EntryRecord], specs: Sequence[str]) -> Board:
        """Return the board of records.

        Args:
            pairs: every cell of the matrix with its record.
            specs: names of the specifications.
        """
        return cls(pairs, specs, attack_rows(pairs), detector_rows(pairs), mitigation_rows(pairs))

    @cached_property
    def chains(self) -> list[ChainNode]:
        """The chains in the order of the page."""
        return order_chains(entry for entry, _ in self.pairs)

    @cached_property
    def controls(self) -> set[str]:
        """Names of the attacks without a backdoor."""
        return {entry.attack for entry, _ in self.pairs if entry.cell.is_clean}

    @cached_property
    def measured(self) -> list[AttackRow]:
        """Attack rows over every measured model, including invalid attacks. No other average counts those."""
        return attack_rows(
            (
                entry,
                replace(record, state="done") if record.state == "invalid" and record.result is not None else record,
            )
            for entry, record in self.pairs
        )

    @cached_property
    def states(self) -> dict[Place, Counter[str]]:
        """Number of records of each place in each state."""
        counts: dict[Place, Counter[str]] = {}
        for entry, record in self.pairs:
            counts.setdefault(place_of(entry), Counter())[state_of(record)] += 1
        return counts

    @cached_property
    def reasons(self) -> dict[Place, str]:
        """First reason of each place for a record without a number."""
        reasons: dict[Place, str] = {}
        for entry, record in self.pairs:
            if reason := reason_of(record):
                reasons.setdefault(place_of(entry), display_text(reason, 300))
        return reasons


def place_of(entry: MatrixEntry) -> Place:
    """Return the place of a cell in the tables, shared by the models of all seeds."""
    return entry.cell.kind, entry.task, entry.chain, entry.attack, entry.cell.method


def state_of(record: Record) -> str:
    """Return the state of a record on the page: *missing* until it has ended."""
    return record.state if record.state in FINAL else "missing"


def reason_of(record: Record) -> str:
    """Return the error of a failed record, the reason of an invalid or abstained one, or an empty text."""
    result = record.result or {}
    return str(record.error or result.get("why_invalid") or result.get("reason") or "")
