"""The gap detector on every model of the dormant matrix, in many forms, and on the four third-party nets.

    assay bench run benchmarks/specs/dormant.yaml --store STORE
    python benchmarks/compression_gap.py STORE      # -> results/compression_gap.json; resumable

The detector has 512 pictures of the calibration split; CA and ASR beside its scores are of the test split, in the same
form, ASR of the planted trigger. Forms that an audit would leave out as broken are left out here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import SHARED, kept, save

from assay import data, formats, metrics, variants
from assay.artifact import Artifact, Build, Secret
from assay.auditing import LOST_AGREEMENT
from assay.bench import matrix, work
from assay.bench.cells import Cell
from assay.bench.inputs import located
from assay.bench.records import open_existing
from assay.bench.spec import parse_text
from assay.blobs import Blobs
from assay.chain import Cache
from assay.detectors import CompressionGap, NeuralCleanse
from assay.models.predict import predict
from assay.task import Task

FORMS = ("int8", "int8-tensor", "int4", "prune-50", "prune-2:4", "filters-10", "filters-20", "filters-30")
SPEC = Path(__file__).parent / "specs/dormant.yaml"
THIRD_PARTY = ("resnet20", "resnet32", "resnet44", "resnet56")
PICTURES = 1000  # of the test split
SAMPLES = 512


def trained(store: Path) -> Iterator[tuple[str, Build, int]]:
    """The models of the matrix that are there: a name, the model, its seed."""
    cells = matrix.cells_of(parse_text(SPEC.read_text()))
    cache = Cache(Blobs(str((store / "models").absolute())))
    with closing(open_existing(store)) as records:
        done = [cells[record.key] for record in records.records() if record.state == "done" and record.key in cells]
    for cell in sorted((cell for cell in done if cell.kind == "build" and len(cell.steps) == 1), key=name_of):
        task = located(cell.task, str(SPEC.parents[2]))
        yield name_of(cell), work._model(task, cell.steps, cell.seed, cache), cell.seed


def name_of(cell: Cell) -> str:
    """What a model was trained with; the settings tell twins apart that are trained otherwise."""
    step = cell.steps[0]
    return f"{step.name} {' '.join(step.settings)} seed {cell.seed}"


def third_party() -> Iterator[tuple[str, Build, int]]:
    for name in THIRD_PARTY:
        artifact = formats.load(SHARED / f"models/{name}-cifar10/model.safetensors", arch=f"{name}-cifar")
        yield f"third-party {name}", Build(artifact, data.load(SHARED / "data/cifar10", artifact.inputs)), 0


def looked_at(build: Build, seed: int) -> dict[str, Any]:
    """What the detector says of each form, and how the model and its backdoor fare there."""
    clean = build.task.split("calibration").sample(SAMPLES, seed=seed)
    full = predict(build.artifact.net, clean.x)
    plain = NeuralCleanse()(build.artifact, clean, seed=seed)
    found = {
        "full": {
            **rates(build.artifact, build.task, build.secret),
            "neural_cleanse": {"score": plain.score, "target": plain.target},
        }
    }
    for name in FORMS:
        form = variants.make(name, build.artifact, clean, seed=seed)
        agreement = float((predict(form.net, clean.x) == full).float().mean())
        row = {**rates(form, build.task, build.secret), "agreement": agreement}
        if 1 - agreement <= LOST_AGREEMENT:
            finding = CompressionGap()(replace(form, reference=build.artifact), clean, seed=seed)
            row |= {
                "status": finding.status,
                "reason": finding.reason,
                "score": finding.score,
                "target": finding.target,
                "numbers": dict(finding.evidence.numbers),
                "seconds": finding.seconds,
            }
        found[name] = row
    secret = build.secret
    return {
        "attack": None if secret is None else secret.attack,
        "target": None if secret is None else secret.target,
        "wakes_in": None if secret is None else secret.wakes_in,
        "seed": seed,
        "forms": found,
    }


def rates(artifact: Artifact, task: Task, secret: Secret | None) -> dict[str, Any]:
    test = task.split("test").sample(PICTURES, seed=0)
    said: dict[str, Any] = {"clean_accuracy": metrics.clean_accuracy(artifact.net, test).value}
    if secret is not None:
        classes = task.num_classes
        said["attack_success"] = metrics.attack_success(artifact.net, test, secret, num_classes=classes).value
    return said


if __name__ == "__main__":
    torch.set_num_threads(1)
    models = kept("compression_gap")
    for each in (lambda: trained(Path(sys.argv[1])), third_party):
        for name, build, seed in each():
            if name not in models:
                models[name] = looked_at(build, seed)
                print(
                    name, {k: (v.get("score"), v.get("target")) for k, v in models[name]["forms"].items()}, flush=True
                )
                save("compression_gap", {"models": models})
