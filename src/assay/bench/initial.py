"""What a task of a matrix begins with: its data, and the net before anything is done to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from assay import data, formats
from assay.bench.job import key_of
from assay.bench.spec import PLACE, Method, Spec, TaskSpec
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec
from assay.data.fingerprint import SOURCES, contents_of
from assay.data.readers.generated import is_synthetic
from assay.formats.untrained import inputs_of, untrained_model
from assay.registry import ATTACKS
from assay.stages.chain import digest_of_task
from assay.stages.downstream import Downstream
from assay.stages.train import LinearProbe, Train

_READ = ("data", "arch", "limit", "start", "features", "shape", "pooling")
"""The fields of a task that say what it begins with."""


def located(spec: TaskSpec, folder: str) -> TaskSpec:
    """``spec`` with whole paths, for a worker that runs elsewhere: what is a path in ``folder`` is meant as one."""
    return replace(spec, data=whole(spec.data, folder), start=None if spec.start is None else whole(spec.start, folder))


def with_whole_paths(method: Method, folder: str) -> Method:
    """``method`` with whole paths where its settings name data; see ``located``."""
    settings = []
    for pair in method.settings:
        key, _, value = pair.partition("=")
        settings.append(f"{key}={whole(value, folder)}" if key in SOURCES else pair)
    return replace(method, settings=tuple(settings))


def whole(source: str, folder: str) -> str:
    path = Path(folder) / source
    return str(path) if path.exists() and not is_synthetic(source) else source


def begun(spec: TaskSpec, *, seed: int) -> tuple[Build, str]:
    """The net that the first step gets, with its task; and the digest of the data.

    Raises UnusableInput where one of them cannot be read or does not fit the other.
    """
    if spec.start is None:
        assert spec.arch is not None  # one of the two is there
        task, digest = _data(spec.data, inputs_of(spec.arch), spec.limit)
        return Build(
            untrained_model(spec.arch, task.num_classes, class_names=task.class_names, seed=seed), task
        ), digest
    artifact = _given(spec)
    task, digest = _data(spec.data, artifact.inputs, spec.limit, artifact.num_classes, artifact.class_names)
    if artifact.num_classes not in (None, task.num_classes):
        raise UnusableInput(
            f"{spec.start} has {artifact.num_classes} classes, and the data {spec.data} has {task.num_classes}: "
            "begin with a model of the data's classes"
        )
    return Build(artifact, task), digest


def digests(spec: Spec) -> dict[str, str]:
    """The digest of what each task begins with, by the task as a line of JSON; for ``Store.expect``.

    Raises UnusableInput, with the place in the spec, for what cannot be read and for attacks that do not fit it: now,
    not once a cell.
    """
    found = {}
    for task in spec.tasks:
        fields = {name: getattr(task, name) for name in _READ}
        try:
            build, of_data = begun(task, seed=0)
        except UnusableInput as error:
            raise UnusableInput(f"tasks.{task.name}: {error}") from None
        found[json.dumps({name: value for name, value in fields.items() if value})] = key_of(
            [of_data, None if task.start is None else build.artifact.digest]
        )
        for name, method in spec.attacks.items():
            _check_attack(f"attacks.{name} on tasks.{task.name}", method, build)
        for name, steps in spec.chains.items():
            _check_chain(f"chains.{name} on tasks.{task.name}", steps, encoder=build.artifact.num_classes is None)
    _data.cache_clear()  # the driver has no more use for them
    return found | _digests_of_sources(spec)


def _digests_of_sources(spec: Spec) -> dict[str, str]:
    """Of the files that settings name, by the path as the spec gives it."""
    methods = (*spec.attacks.values(), *(step for steps in spec.chains.values() for step in steps))
    settings = (dict(pair.split("=", 1) for pair in method.settings) for method in methods)
    return {path: content for each in settings for path, content in contents_of(each).items()}


def _check_attack(where: str, method: Method, build: Build) -> None:
    if method.name in ATTACKS:
        try:
            method.attack().check(build.task.split("train"), build.artifact.num_classes)
        except UnusableInput as error:
            raise UnusableInput(f"{where}: {error}") from None


def _check_chain(where: str, steps: Sequence[Method], *, encoder: bool) -> None:
    """Raises UnusableInput for a step downstream from what is no encoder, and for one that trains an encoder."""
    for method in steps:
        stage = None if method.name == PLACE else method.stage()
        if isinstance(stage, Downstream):
            if not encoder:
                raise UnusableInput(
                    f"{where}: {method.name} is a step from an encoder, and there is a classifier there"
                )
            encoder = False
        elif isinstance(stage, Train | LinearProbe) and encoder and stage.recipe.epochs:
            raise UnusableInput(
                f"{where}: {method.name} trains classes, and there is an encoder there: downstream first"
            )


def _given(spec: TaskSpec) -> Artifact:
    assert spec.start is not None
    artifact = formats.load(spec.start, arch=spec.arch, shape=spec.shape, features=spec.features, pooling=spec.pooling)
    if not artifact.differentiable:
        raise UnusableInput(
            f"{spec.start}: planting needs weights in torch, which a model in {artifact.format} format does not have"
        )
    return artifact


@lru_cache(maxsize=2)
def _data(
    source: str,
    inputs: InputSpec,
    limit: int | None,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
) -> tuple[Task, str]:
    """The data and its digest; a worker sees the same again and again."""
    task = data.load(source, inputs, num_classes=num_classes, class_names=class_names, limit=limit)
    return task, digest_of_task(task)
