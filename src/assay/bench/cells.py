"""The cells of a matrix: what has to be computed, in which order, each under a key of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from assay._version import __version__
from assay.bench.full_audit import WHOLE
from assay.bench.job import key_of
from assay.bench.spec import PLACE, Band, Method, Spec, TaskSpec
from assay.calibration.file import digest_of_builtin

Kind = Literal["build", "measure", "detect", "mitigate"]

MEANING = 3
"""Counted up where cells come to compute something else within one version of assay, so that no old result is taken."""


@dataclass(frozen=True)
class Cell:
    """One computation, a pure function of its fields and of the versions of assay, torch and the reference scores.

    ``build``: the model after ``steps``. ``measure``: how good it is and how well its backdoor works, beside its clean
    twin; invalid where the backdoor missed its band right after it was planted. ``detect``: what ``method`` scores it.
    ``mitigate``: the same as measure, after the stages ``repair``.
    """

    kind: Kind
    task: TaskSpec
    steps: tuple[Method, ...]
    seed: int
    method: str = ""
    repair: tuple[Method, ...] = ()
    valid: Band | None = None  # of measure
    samples: int = 0  # of detect

    @cached_property
    def key(self) -> str:
        """sha256 over everything that the result depends on."""
        null = [digest_of_builtin(encoders=self.task.features)] if self.method == WHOLE else []
        return key_of([__version__, torch.__version__, MEANING, self.content, *null])

    @cached_property
    def content(self) -> str:
        """sha256 over what is computed, whatever version of assay or torch does it."""
        fields = asdict(self)
        fields["task"].pop("name")
        fields["task"].pop("recipe")  # it is in the steps
        for name in ("start", "features", "shape", "pooling"):  # what older records do not say
            if not fields["task"][name]:
                fields["task"].pop(name)
        if self.valid is not None and self.valid.asleep == Band.asleep:
            fields["valid"].pop("asleep")
        if self.kind == "mitigate":
            fields.pop("method")  # what the spec calls it
        return key_of(fields)

    @property
    def is_clean(self) -> bool:
        """Whether no step plants a backdoor: a control."""
        return clean_twin(self.steps) == self.steps

    def needs(self) -> tuple[Cell, ...]:
        """The cells that have to be done before this one."""
        if self.kind == "build":
            return (self._build(self.steps[:-1]),) if len(self.steps) > 1 else ()
        if self.kind == "measure":
            return tuple(dict.fromkeys((self._build(self.steps), self._build(clean_twin(self.steps)))))
        return (Cell("measure", self.task, self.steps, self.seed, valid=self.valid),)

    def about(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        steps = " > ".join(step.name for step in self.steps)
        return f"{self.kind} {self.method}".strip() + f" of {steps} on {self.task.name}, seed {self.seed}"

    def _build(self, steps: tuple[Method, ...]) -> Cell:
        return Cell("build", self.task, steps, self.seed)


@dataclass(frozen=True)
class Entry:
    """A cell and its place in the matrix."""

    cell: Cell
    task: str
    attack: str
    chain: str
    spec: str = field(default="", compare=False)  # the first that asks for it


def clean_twin(steps: tuple[Method, ...]) -> tuple[Method, ...]:
    """The same chain without the backdoor."""
    return tuple(step.without_backdoor() for step in steps)


def as_planted(steps: tuple[Method, ...]) -> tuple[Method, ...]:
    """The chain up to the step that plants the backdoor, that one included; all of it where none does."""
    planting = [index for index, step in enumerate(steps) if step.without_backdoor() != step]
    return steps[: planting[0] + 1] if planting else steps


def entries(spec: Spec) -> Iterator[Entry]:
    """All cells of the matrix that are asked for, those with a result to look at; ``with_needs`` adds the others."""
    for task in spec.tasks:
        for seed in spec.seeds:
            for chain, places in spec.chains.items():
                for attack, method in spec.attacks.items():
                    planting = method.trained_by(task.recipe)
                    steps = tuple(planting if step == Method(PLACE) else step for step in places)
                    for cell in _of_model(spec, task, steps, seed):
                        yield Entry(cell, task.name, attack, chain, spec.name)


def _of_model(spec: Spec, task: TaskSpec, steps: tuple[Method, ...], seed: int) -> Iterator[Cell]:
    yield Cell("measure", task, steps, seed, valid=spec.valid)
    for detector in spec.detectors:
        yield Cell("detect", task, steps, seed, method=detector, valid=spec.valid, samples=spec.samples)
    if steps[-1].makes_a_file:  # the defender would mitigate before the export, which is another chain
        return
    for name, repair in spec.mitigations.items():
        yield Cell("mitigate", task, steps, seed, method=name, repair=repair, valid=spec.valid)


def with_needs(wanted: Iterator[Cell] | list[Cell]) -> dict[str, Cell]:
    """``wanted`` and all that they need, by key, each after what it needs."""
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        if cell.key not in found:
            for need in cell.needs():
                add(need)
            found[cell.key] = cell

    for cell in wanted:
        add(cell)
    return found
