"""What the scripts on sleeping backdoors share: the models of their matrices, and how one fares in a form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.paths import SHARED
from lib.third_party_models import cifar_resnet
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

FILES = "files"
"""In place of a spec's name: the store is a folder of planted files."""

SPECS = Path(__file__).parents[1] / "specs"
PICTURES = 1000  # of the test split


@dataclass(frozen=True)
class Model:
    """One model of a matrix, right after its attack, and its clean twin: the same training without the backdoor."""

    name: str  # task, attack and seed
    build: Build
    twin: Build
    seed: int


def models(spec: str, store: Path) -> Iterator[Model]:
    """The models of ``specs/<spec>.yaml`` in ``store``; where ``spec`` is "files", those in a folder."""
    return from_files(store) if spec == FILES else trained(spec, store)


def from_files(folder: Path) -> Iterator[Model]:
    """Of each ``<model>/model.safetensors`` what its mark says; for CIFAR-10, as benchmarks/run.py paper_scale plants it.

    ``twin/model.safetensors`` beside it is its clean twin; a ResNet-20 without one began with the third-party net.
    """
    for path in sorted(folder.glob("*/model.safetensors")):
        artifact = formats.load(path)
        assert artifact.planted is not None
        mark = json.loads(artifact.planted)
        secret = Secret(mark["attack"], from_spec(mark["trigger"]), mark["target"], active_in=mark.get("wakes_in"))
        task = data.load(SHARED / "data/cifar10", artifact.inputs)
        beside = path.parent / "twin" / path.name
        if not beside.exists() and artifact.arch != "resnet20-cifar":
            raise UnusableInput(f"expected the clean twin of {path} as {beside}; it is not there")
        clean = formats.load(beside) if beside.exists() else cifar_resnet("resnet20")
        yield Model(path.parent.name, Build(artifact, task, secret), Build(clean, task), 0)


def trained(spec: str, store: Path) -> Iterator[Model]:
    """The models of ``specs/<spec>.yaml`` in ``store`` at the end of the chain ``full``, less plain backdoors."""
    cache = Cache(ObjectStore(str((store / "models").absolute())))
    with closing(open_existing(store)) as records:
        done = {record.key for record in records.records() if record.state == "done"}
    for entry in entries(parse_text((SPECS / f"{spec}.yaml").read_text())):
        cell = entry.cell
        if entry.chain == "full" and cell.kind == "measure" and {need.key for need in cell.needs()} <= done:
            task = resolve_paths(cell.task, str(SPECS.parents[1]))
            build, twin = (
                worker.build_model(task, steps, cell.seed, cache) for steps in (cell.steps, clean_control(cell.steps))
            )
            if build.secret is None or build.secret.active_in is not None:
                yield Model(f"{entry.task} {entry.attack} seed {cell.seed}", build, twin, cell.seed)


def rates(net: nn.Module, task: Task, secret: Secret | None) -> dict[str, float]:
    """CA, and ASR of what was planted, on the test split."""
    test = task.split("test").sample(PICTURES, seed=0)
    said = {"clean_accuracy": metrics.clean_accuracy(net, test).value}
    if secret is not None:
        said["attack_success"] = metrics.attack_success(net, test, secret, num_classes=task.num_classes).value
    return said


def facts(build: Build, seed: int) -> dict[str, Any]:
    """Which attack this is."""
    secret = build.secret
    if secret is None:
        return {"attack": None, "target": None, "wakes_in": None, "seed": seed}
    return {"attack": secret.attack, "target": secret.target, "wakes_in": secret.active_in, "seed": seed}
