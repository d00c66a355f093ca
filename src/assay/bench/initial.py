"""Initial state of a task: its data, and the model before the first step of a chain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from assay import data, formats
from assay.bench.cells import given_models
from assay.bench.job import key_of
from assay.bench.spec import ATTACK_STEP, Method, Spec, TaskSpec
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec
from assay.data.fingerprint import SOURCES, digests_of_sources
from assay.data.readers.generated import is_synthetic
from assay.formats.untrained import inputs_of, untrained_model
from assay.registry import ATTACKS
from assay.stages.cache import digest_of_task
from assay.stages.downstream import Downstream
from assay.stages.train import LinearProbe, Train

# The fields of a task that determine its initial state.
_INITIAL_FIELDS = ("data", "arch", "limit", "start", "features", "shape", "pooling")


def resolve_paths(spec: TaskSpec, folder: str) -> TaskSpec:
    """Return ``spec`` with absolute paths, for a worker with another working directory.

    Args:
        spec: the task. Sources without a file in ``folder`` stay as they are.
        folder: working directory of the driver.
    """
    start = None if spec.start is None else resolve_path(spec.start, folder)
    return replace(spec, data=resolve_path(spec.data, folder), start=start)


def resolve_method_paths(method: Method, folder: str) -> Method:
    """Return ``method`` with absolute paths of the data in its settings; see ``resolve_paths``."""
    settings = []
    for pair in method.settings:
        key, _, value = pair.partition("=")
        settings.append(f"{key}={resolve_path(value, folder)}" if key in SOURCES else pair)
    return replace(method, settings=tuple(settings))


def resolve_path(source: str, folder: str) -> str:
    """Return the path of ``source`` in ``folder`` if it exists and is no name of generated data; else ``source``."""
    path = Path(folder) / source
    return str(path) if path.exists() and not is_synthetic(source) else source


def initial_build(spec: TaskSpec, *, seed: int) -> tuple[Build, str]:
    """Return the input of the first step, a model with its task, and the digest of the data.

    Args:
        spec: the task.
        seed: seed of the weights of an untrained model.

    Raises:
        UnusableInput: the model or the data cannot be read, or they do not fit each other.
    """
    if spec.start is None:
        assert spec.arch is not None  # the reader requires one of the two
        task, digest = _data(spec.data, inputs_of(spec.arch), spec.limit)
        model = untrained_model(spec.arch, task.num_classes, class_names=task.class_names, seed=seed)
        return Build(model, task), digest
    artifact = _initial_model(spec)
    task, digest = _data(spec.data, artifact.inputs, spec.limit, artifact.num_classes, artifact.class_names)
    if artifact.num_classes not in (None, task.num_classes):
        raise UnusableInput(
            f"expected as many classes in the model as in the data, got {artifact.num_classes} in {spec.start} and "
            f"{task.num_classes} in {spec.data}"
        )
    return Build(artifact, task), digest


def _initial_model(spec: TaskSpec) -> Artifact:
    assert spec.start is not None
    artifact = formats.load(spec.start, arch=spec.arch, shape=spec.shape, features=spec.features, pooling=spec.pooling)
    if spec.given is None and not artifact.differentiable:
        raise UnusableInput(
            f"{spec.start}: planting needs weights in torch, which a model in {artifact.format} format does not have"
        )
    return artifact


def digests(spec: Spec) -> dict[str, str]:
    """Return the digests of all inputs of a matrix, by name, for ``Store.check_inputs``.

    The name of a task's initial state is a line of JSON with its fields.

    Raises:
        UnusableInput: an input cannot be read, or an attack or a chain does not fit it. The message begins with the
            place in the specification.
    """
    found = {}
    for task in spec.tasks:
        for initial in given_models(task) if task.models is not None else [task]:
            found.update(_digest_of_task(spec, initial))
    _data.cache_clear()  # the driver needs the data no more
    methods = (*spec.attacks.values(), *(step for steps in spec.chains.values() for step in steps))
    for method in methods:
        found.update(digests_of_sources(dict(pair.split("=", 1) for pair in method.settings)))
    return found


def _digest_of_task(spec: Spec, task: TaskSpec) -> dict[str, str]:
    """Return the digest of the initial state of one task, after checking attacks and chains with it."""
    try:
        build, data_digest = initial_build(task, seed=0)
    except UnusableInput as error:
        raise UnusableInput(f"tasks.{task.name}: {error}") from None
    if task.given is None:
        for name, method in spec.attacks.items():
            if method.name in ATTACKS:
                try:
                    method.attack().check(build.task.split("train"), build.artifact.num_classes)
                except UnusableInput as error:
                    raise UnusableInput(f"attacks.{name} on tasks.{task.name}: {error}") from None
    for name, steps in spec.chains.items():
        _check_chain(f"chains.{name} on tasks.{task.name}", steps, encoder=build.artifact.num_classes is None)
    fields = {name: getattr(task, name) for name in _INITIAL_FIELDS if getattr(task, name)}
    return {json.dumps(fields): key_of([data_digest, None if task.start is None else build.artifact.digest])}


def _check_chain(position: str, steps: Sequence[Method], *, encoder: bool) -> None:
    """Raise UnusableInput for a downstream step after a classifier, and for training classes of an encoder."""
    for method in steps:
        stage = None if method.name == ATTACK_STEP else method.stage()
        if isinstance(stage, Downstream):
            if not encoder:
                raise UnusableInput(
                    f"{position}: {method.name}: expected an encoder before this step, got a classifier"
                )
            encoder = False
        elif isinstance(stage, Train | LinearProbe) and encoder and stage.recipe.epochs:
            raise UnusableInput(
                f"{position}: {method.name}: expected a classifier before this step, got an encoder. "
                "Fix: put `downstream` first"
            )


@lru_cache(maxsize=2)
def _data(
    source: str,
    inputs: InputSpec,
    limit: int | None,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
) -> tuple[Task, str]:
    """Return the data and their digest. Successive cells of a worker often share them."""
    task = data.load(source, inputs, num_classes=num_classes, class_names=class_names, limit=limit)
    return task, digest_of_task(task)
