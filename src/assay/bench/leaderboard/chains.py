"""Which chain extends which: their order on the page, and how an attack's success changes along them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from assay.bench.cells import Entry
from assay.bench.spec import CONTROL, PLACE, Method
from assay.bench.statistics import AttackRow, Found, attack_rows


@dataclass(frozen=True)
class Chain:
    """A chain's name, its steps with PLACE where the attack goes, and the longest other chain that it extends."""

    name: str
    steps: tuple[Method, ...]
    parent: str | None = None
    depth: int = 0  # how many chains it extends


def chains_of(entries: Iterable[Entry]) -> list[Chain]:
    """The chains, each after the one that it extends, short ones first."""
    steps: dict[str, tuple[Method, ...]] = {}
    for entry in entries:
        steps.setdefault(entry.chain, tuple(_place(step) for step in entry.cell.steps))
    by_length = sorted(steps, key=lambda name: (len(steps[name]), name))
    ordered: list[Chain] = []

    def add(name: str, parent: str | None, depth: int) -> None:
        ordered.append(Chain(name, steps[name], parent, depth))
        for child in by_length:
            if _parent(child, steps) == name:
                add(child, name, depth + 1)

    for name in by_length:
        if _parent(name, steps) is None:
            add(name, None, 0)
    return ordered


def measured_rows(found: Iterable[Found]) -> list[AttackRow]:
    """The attacks' rows over every measured model, also those in which the attack missed its band when it was planted.

    They are in no average elsewhere; here they show what their attack came to.
    """
    return attack_rows(
        (entry, replace(record, state="done") if record.state == "invalid" and record.result is not None else record)
        for entry, record in found
    )


def _place(step: Method) -> Method:
    is_attack = step.name == CONTROL or step.without_backdoor() != step
    return Method(PLACE) if is_attack else step


def _parent(name: str, steps: Mapping[str, tuple[Method, ...]]) -> str | None:
    """The longest chain that is a beginning of this one."""
    own = steps[name]
    shorter = [other for other, theirs in steps.items() if len(theirs) < len(own) and own[: len(theirs)] == theirs]
    return max(shorter, key=lambda other: len(steps[other]), default=None)
