"""Cells of a matrix: single computations, in order of their dependencies, each under a key of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any, Literal

import torch

from assay._version import __version__
from assay.bench.job import key_of
from assay.bench.spec import ATTACK_STEP, CONTROL, FULL_AUDIT, Method, Spec, TaskSpec, ValidityCriteria
from assay.calibration.file import digest_of_shipped

Kind = Literal["build", "measure", "detect", "mitigate"]

REVISION = 3  # of the computation in cells; raised when it changes within one version of assay


@dataclass(frozen=True)
class Cell:
    """One computation: a pure function of its fields, the versions of assay and torch, and the reference scores.

    ``build``: the model after ``steps``. ``measure``: its accuracy and backdoor, compared with the clean control;
    invalid if the attack missed ``valid`` right after planting. ``detect``: the score of the detector ``method``.
    ``mitigate``: the same as measure, after the stages ``repair``.
    """

    kind: Kind
    task: TaskSpec
    steps: tuple[Method, ...]
    seed: int
    method: str = ""
    repair: tuple[Method, ...] = ()
    valid: ValidityCriteria | None = None  # of measure
    samples: int = 0  # of detect

    @cached_property
    def key(self) -> str:
        """sha256 of all inputs of the result."""
        null = [digest_of_shipped(encoders=self.task.features)] if self.method == FULL_AUDIT else []
        return key_of([__version__, torch.__version__, REVISION, self.content, *null])

    @cached_property
    def content(self) -> str:
        """sha256 of the computation itself, independent of the versions of assay and torch."""
        fields = asdict(self)
        task = fields["task"]
        # The steps hold the recipe; ``start`` and ``given`` hold the model of a folder.
        for name in ("name", "recipe", "models", "truth"):
            task.pop(name)
        for name in ("start", "features", "shape", "pooling", "given"):  # absent from the oldest records
            if not task[name]:
                task.pop(name)
        if self.valid is not None:
            inactive_asr = fields["valid"].pop("inactive_asr")
            if inactive_asr != ValidityCriteria.inactive_asr:
                fields["valid"]["asleep"] = inactive_asr  # the first records knew it by this name
        if self.kind == "mitigate":
            fields.pop("method")  # its name in the specification
        return key_of(fields)

    @property
    def is_clean(self) -> bool:
        """True for a control: no step plants a backdoor, and a given model has none."""
        if self.task.given is not None and self.task.given.attack != CONTROL:
            return False
        return clean_control(self.steps) == self.steps

    @property
    def training_run(self) -> tuple[object, ...]:
        """The identity of the first training run: models of one run are not independent of each other."""
        return (self.task.start,) if self.task.given is not None else (self.steps[0], self.seed)

    def needs(self) -> tuple[Cell, ...]:
        """Return the direct dependencies."""
        if self.kind == "build":
            return (self._build(self.steps[:-1]),) if len(self.steps) > 1 else ()
        if self.kind == "measure":
            return tuple(dict.fromkeys((self._build(self.steps), self._build(clean_control(self.steps)))))
        return (Cell("measure", self.task, self.steps, self.seed, valid=self.valid),)

    def about(self) -> dict[str, Any]:
        """Return the fields in plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        steps = " > ".join(step.name for step in self.steps) or f"the given {self.task.start}"
        return f"{self.kind} {self.method}".strip() + f" of {steps} on {self.task.name}, seed {self.seed}"

    def _build(self, steps: tuple[Method, ...]) -> Cell:
        return Cell("build", self.task, steps, self.seed)


@dataclass(frozen=True)
class MatrixEntry:
    """A cell and its position in the matrix."""

    cell: Cell
    task: str
    attack: str
    chain: str
    spec: str = field(default="", compare=False)  # the first one that contains it


def clean_control(steps: tuple[Method, ...]) -> tuple[Method, ...]:
    """Return the chain with clean training in place of the attack: the clean control."""
    return tuple(step.without_backdoor() for step in steps)


def steps_to_planting(steps: tuple[Method, ...]) -> tuple[Method, ...]:
    """Return the chain up to and including the planting step; all steps of a clean chain."""
    planting = [index for index, step in enumerate(steps) if step.without_backdoor() != step]
    return steps[: planting[0] + 1] if planting else steps


def given_models(task: TaskSpec) -> list[TaskSpec]:
    """Return a task for each model of a folder, with that model as its initial model."""
    return [
        replace(task, start=str(PurePath(task.models or "", given.path)), models=None, truth=(), given=given)
        for given in task.truth
    ]


def entries(spec: Spec) -> Iterator[MatrixEntry]:
    """Yield the cells of the matrix with results for a report. ``with_needs`` adds their dependencies."""
    for task in spec.tasks:
        for seed in spec.seeds:
            for chain, placed in spec.chains.items():
                for attack, own_task, steps in _models(spec, task, placed):
                    for cell in _cells_of_model(spec, own_task, steps, seed):
                        yield MatrixEntry(cell, task.name, attack, chain, spec.name)


def _models(
    spec: Spec, task: TaskSpec, placed: tuple[Method, ...]
) -> Iterator[tuple[str, TaskSpec, tuple[Method, ...]]]:
    """Yield the attack, the task and the steps of each model along one chain."""
    if task.models is not None:
        for own_task in given_models(task):
            assert own_task.given is not None
            yield own_task.given.attack, own_task, placed[1:]  # the model comes in place of the attack
        return
    for attack, method in spec.attacks.items():
        planting = method.with_recipe(task.recipe)
        yield attack, task, tuple(planting if step == Method(ATTACK_STEP) else step for step in placed)


def _cells_of_model(spec: Spec, task: TaskSpec, steps: tuple[Method, ...], seed: int) -> Iterator[Cell]:
    yield Cell("measure", task, steps, seed, valid=spec.valid)
    for detector in spec.detectors:
        yield Cell("detect", task, steps, seed, method=detector, valid=spec.valid, samples=spec.samples)
    if steps and steps[-1].exports_file:  # a defender mitigates before the export, which is another chain
        return
    for name, repair in spec.mitigations.items():
        yield Cell("mitigate", task, steps, seed, method=name, repair=repair, valid=spec.valid)


def with_needs(wanted: Iterable[Cell]) -> dict[str, Cell]:
    """Return ``wanted`` and their dependencies by key, dependencies first."""
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        if cell.key not in found:
            for need in cell.needs():
                add(need)
            found[cell.key] = cell

    for cell in wanted:
        add(cell)
    return found
