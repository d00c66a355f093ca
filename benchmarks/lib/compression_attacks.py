"""Models of the matrices of compression-activated backdoors, and their rates in one variant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from assay import data, formats
from assay.bench import worker
from assay.bench.cells import clean_control, entries
from assay.bench.initial import resolve_paths
from assay.bench.records import open_existing
from assay.bench.spec_reader import parse_text
from assay.core.build import Build, Secret
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.io.object_store import ObjectStore
from assay.nn import metrics
from assay.stages.cache import Cache
from assay.triggers import from_spec
from lib.paths import ROOT, SHARED, SPECS
from lib.third_party_models import cifar_resnet

FILES = "files"  # in place of a spec's name: the store is a folder of planted files
TEST_IMAGES = 1000


@dataclass(frozen=True)
class Model:
    """One model of a matrix after its attack, and its clean control: the same training without the backdoor."""

    name: str  # task, attack and seed
    build: Build
    clean_control: Build
    seed: int


def models(spec: str, store: Path) -> Iterator[Model]:
    """Yield the models of ``specs/SPEC.yaml`` in a store.

    Args:
        spec: Name of the specification, or ``files``.
        store: Store of the bench; for ``files`` a folder of planted models.
    """
    return models_in_folder(store) if spec == FILES else models_in_store(spec, store)


def models_in_folder(folder: Path) -> Iterator[Model]:
    """Yield the models ``FOLDER/MODEL/model.safetensors``, with the attack of their planted mark (CIFAR-10).

    ``benchmarks/run.py paper_scale`` writes such files, with the clean control as ``MODEL/twin/model.safetensors``.
    The clean control of a ResNet-20 without that file is the third-party model.
    """
    for path in sorted(folder.glob("*/model.safetensors")):
        artifact = formats.load(path)
        assert artifact.planted is not None
        planted = json.loads(artifact.planted)
        trigger = from_spec(planted["trigger"])
        secret = Secret(planted["attack"], trigger, planted["target"], active_in=planted.get("wakes_in"))
        task = data.load(SHARED / "data/cifar10", artifact.inputs)
        control_path = path.parent / "twin" / path.name
        if not control_path.exists() and artifact.arch != "resnet20-cifar":
            raise UnusableInput(f"expected the clean control of {path} as {control_path}, got no file. Fix: train it")
        clean = formats.load(control_path) if control_path.exists() else cifar_resnet("resnet20")
        yield Model(path.parent.name, Build(artifact, task, secret), Build(clean, task), 0)


def models_in_store(spec: str, store: Path) -> Iterator[Model]:
    """Yield the models at the end of the chain ``full`` of ``specs/SPEC.yaml``, except plain backdoors."""
    cache = Cache(ObjectStore(str((store / "models").absolute())))
    with closing(open_existing(store)) as records:
        done = {record.key for record in records.records() if record.state == "done"}
    for entry in entries(parse_text((SPECS / f"{spec}.yaml").read_text())):
        cell = entry.cell
        if entry.chain == "full" and cell.kind == "measure" and {need.key for need in cell.needs()} <= done:
            task = resolve_paths(cell.task, str(ROOT))
            build, control = (
                worker.build_model(task, steps, cell.seed, cache) for steps in (cell.steps, clean_control(cell.steps))
            )
            if build.secret is None or build.secret.active_in is not None:
                yield Model(f"{entry.task} {entry.attack} seed {cell.seed}", build, control, cell.seed)


def rates(model: nn.Module, task: Task, secret: Secret | None) -> dict[str, float]:
    """Return CA, and ASR of the planted trigger, on the test split."""
    test = task.split("test").sample(TEST_IMAGES, seed=0)
    values = {"clean_accuracy": metrics.clean_accuracy(model, test).value}
    if secret is not None:
        values["attack_success"] = metrics.attack_success(model, test, secret, num_classes=task.num_classes).value
    return values


def describe_attack(build: Build, seed: int) -> dict[str, Any]:
    """Return the entries of a row that identify the attack."""
    secret = build.secret
    if secret is None:
        return {"attack": None, "target": None, "wakes_in": None, "seed": seed}
    return {"attack": secret.attack, "target": secret.target, "wakes_in": secret.active_in, "seed": seed}
