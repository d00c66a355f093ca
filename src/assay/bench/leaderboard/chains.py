"""Order of the chains on the page: extensions follow their base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from assay.bench.cells import MatrixEntry
from assay.bench.spec import ATTACK_STEP, CONTROL, Method


@dataclass(frozen=True)
class ChainNode:
    """A chain, and the longest other chain at its beginning."""

    name: str
    steps: tuple[Method, ...]  # with ATTACK_STEP in place of the attack
    parent: str | None = None
    depth: int = 0  # number of chains that it extends


def order_chains(entries: Iterable[MatrixEntry]) -> list[ChainNode]:
    """Return the chains, short ones first, with extensions after their base."""
    steps: dict[str, tuple[Method, ...]] = {}
    for entry in entries:
        steps.setdefault(entry.chain, tuple(_with_placeholder(step) for step in entry.cell.steps))
    by_length = sorted(steps, key=lambda name: (len(steps[name]), name))
    ordered: list[ChainNode] = []

    def add(name: str, parent: str | None, depth: int) -> None:
        ordered.append(ChainNode(name, steps[name], parent, depth))
        for child in by_length:
            if _parent(child, steps) == name:
                add(child, name, depth + 1)

    for name in by_length:
        if _parent(name, steps) is None:
            add(name, None, 0)
    return ordered


def _with_placeholder(step: Method) -> Method:
    is_attack = step.name == CONTROL or step.without_backdoor() != step
    return Method(ATTACK_STEP) if is_attack else step


def _parent(name: str, steps: Mapping[str, tuple[Method, ...]]) -> str | None:
    """Return the longest chain at the beginning of this one."""
    own = steps[name]
    shorter = [other for other, theirs in steps.items() if len(theirs) < len(own) and own[: len(theirs)] == theirs]
    return max(shorter, key=lambda other: len(steps[other]), default=None)
