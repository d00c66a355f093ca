"""Unique names for the parts of several specifications in one store.

Two specifications may give one name to different things. A table must not merge them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

from assay.bench.cells import MatrixEntry, entries
from assay.bench.spec import Spec

Parts = Mapping[str, Hashable]  # by name
Names = Mapping[tuple[str, Hashable], str]  # by the name in a specification, and the part


def unique_entries(specs: Sequence[Spec]) -> Iterator[MatrixEntry]:
    """Yield the entries of all ``specs``, each once.

    A name with different meanings is followed by the name of the specification, as in ``tuned (second)``.
    """
    tasks = _names(specs, lambda spec: {task.name: replace(task, name="") for task in spec.tasks})
    attacks = _names(specs, _attacks)
    chains = _names(specs, _chains)
    mitigations = _names(specs, lambda spec: spec.mitigations)
    seen: set[MatrixEntry] = set()
    for spec in specs:
        own_tasks = {task.name: replace(task, name="") for task in spec.tasks}
        own_attacks, own_chains = _attacks(spec), _chains(spec)
        for entry in entries(spec):
            cell = entry.cell
            if cell.kind == "mitigate":
                cell = replace(cell, method=mitigations[cell.method, cell.repair])
            unique = MatrixEntry(
                cell,
                task=tasks[entry.task, own_tasks[entry.task]],
                attack=attacks[entry.attack, own_attacks[entry.attack]],
                chain=chains[entry.chain, own_chains[entry.chain]],
                spec=spec.name,
            )
            if unique not in seen:
                seen.add(unique)
                yield unique


def _attacks(spec: Spec) -> Parts:
    """Return the attacks, and the names of the attacks of given models."""
    return {**{given.attack: "given" for task in spec.tasks for given in task.truth}, **spec.attacks}


def _chains(spec: Spec) -> Parts:
    """Return the chains with all settings of the numbers at their ends."""
    return {name: (steps, spec.valid, spec.samples) for name, steps in spec.chains.items()}


def _names(specs: Sequence[Spec], parts: Callable[[Spec], Parts]) -> Names:
    """Return the unique name of each part. Ambiguous names end with the first specification of the part."""
    owners: dict[str, dict[Hashable, str]] = {}
    for spec in specs:
        for name, part in parts(spec).items():
            owners.setdefault(name, {}).setdefault(part, spec.name)
    return {
        (name, part): name if len(own) == 1 else f"{name} ({owner})"
        for name, own in owners.items()
        for part, owner in own.items()
    }
