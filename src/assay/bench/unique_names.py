"""One name, one thing: specs of one store may call different things the same, and a table must not merge those."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

from assay.bench.cells import Entry, entries
from assay.bench.spec import Spec

Things = Mapping[str, Hashable]  # by name
Names = Mapping[tuple[str, Hashable], str]  # by the name that a spec gives, and the thing


def places(specs: Sequence[Spec]) -> Iterator[Entry]:
    """The entries of all ``specs``, each once.

    A name that they give to different things is followed by the name of the spec, as in ``tuned (second)``.
    """
    tasks = _names(specs, lambda spec: {task.name: replace(task, name="") for task in spec.tasks})
    attacks = _names(specs, lambda spec: spec.attacks)
    chains = _names(specs, _chains)
    mitigations = _names(specs, lambda spec: spec.mitigations)
    seen: set[Entry] = set()
    for spec in specs:
        own = _chains(spec)
        for entry in entries(spec):
            cell = entry.cell
            if cell.kind == "mitigate":
                cell = replace(cell, method=mitigations[cell.method, cell.repair])
            apart = Entry(
                cell,
                task=tasks[entry.task, replace(cell.task, name="")],
                attack=attacks[entry.attack, spec.attacks[entry.attack]],
                chain=chains[entry.chain, own[entry.chain]],
                spec=spec.name,
            )
            if apart not in seen:
                seen.add(apart)
                yield apart


def _chains(spec: Spec) -> Things:
    """Their steps, and what else the spec asks of the models at their ends: figures under another band are others."""
    return {name: (steps, spec.valid, spec.samples) for name, steps in spec.chains.items()}


def _names(specs: Sequence[Spec], things: Callable[[Spec], Things]) -> Names:
    """The name of each thing: its own, with the first spec's that has it where others have another thing so called."""
    owners: dict[str, dict[Hashable, str]] = {}
    for spec in specs:
        for name, thing in things(spec).items():
            owners.setdefault(name, {}).setdefault(thing, spec.name)
    return {
        (name, thing): name if len(own) == 1 else f"{name} ({owner})"
        for name, own in owners.items()
        for thing, owner in own.items()
    }
