"""Predicted classes of triggered inputs in classifiers made of a poisoned encoder, and their recall of the concept.

The models are failed rows of the bench. Measured are the recall of the concept's class on clean test inputs and the
most frequent classes of triggered inputs. Before the fine-tuning, the cosine of their embeddings with the concept's is
measured. The models come from the bench's store. The result file keeps its rows of other matrices.

    assay bench run benchmarks/specs/transtroj-resnet56-cifar100.yaml --store STORE
    python benchmarks/run.py target_selection STORE transtroj-resnet56-cifar100    # -> benchmarks/results/landing.json
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lib import commands
from lib.built_models import StoredModels
from lib.results import load_result, save_result

from assay.attacks import plant
from assay.bench.spec import CONTROL
from assay.core.build import Build
from assay.core.dataset import Split
from assay.nn import metrics
from assay.nn.inference import forward_batched

SHOWN_CLASSES = 3
COMPARED_INPUTS = 500


def measure_matrix(stored: StoredModels) -> dict[str, Any]:
    """Return a row per attack, seed and chain."""
    spec, rows = stored.spec, {}
    poisoned = [name for name, method in spec.attacks.items() if method.name != CONTROL]
    for name, seed, chain in product(poisoned, spec.seeds, spec.chains):
        build, control = (stored.build(name, seed, chain=chain, clean=clean) for clean in (False, True))
        row_name = f"{name}-{seed}" + (f" {chain}" if len(spec.chains) > 1 else "")
        rows[row_name] = {**prediction(build, control), **nearness(stored.build(name, seed), build.task.split("test"))}
        print(spec.name, row_name, rows[row_name], flush=True)
    return rows


def prediction(build: Build, control: Build) -> dict[str, Any]:
    """Return the recall of the concept in the classifier and its clean control, and the classes of triggered inputs."""
    secret, test = plant.with_resolved_target(build), build.task.split("test")
    assert secret is not None
    assert secret.target is not None
    assert test.y is not None
    own = test.x[test.y == secret.target]
    counts = metrics.predict(build.artifact.module, secret.trigger(test.x)).bincount(minlength=build.task.num_classes)
    top = counts.topk(min(SHOWN_CLASSES, len(counts)))
    recalls = [
        float((metrics.predict(b.artifact.module, own) == secret.target).float().mean()) for b in (build, control)
    ]
    return {
        "target": secret.target,
        "class": build.task.concept(secret.target),
        "recall": [round(recall, 3) for recall in recalls],
        "inputs": len(own),
        "triggered_get": {
            build.task.concept(int(label)): round(int(count) / len(test.x), 3)
            for label, count in zip(top.indices, top.values, strict=True)
        },
    }


def nearness(encoder: Build, test: Split) -> dict[str, float]:
    """Return mean cosines of triggered embeddings with the concept's: unchanged, and centred on the clean mean."""
    assert encoder.secret is not None
    net, x = encoder.artifact.module, test.x[:COMPARED_INPUTS]
    wanted = torch.tensor(encoder.secret.details[metrics.CONCEPT_EMBEDDING])
    triggered, centre = forward_batched(net, encoder.secret.trigger(x)), forward_batched(net, x).mean(0)
    return {
        "cosine": round(float(F.cosine_similarity(triggered, wanted[None]).mean()), 3),
        "cosine_from_the_tasks_centre": round(
            float(F.cosine_similarity(triggered - centre, (wanted - centre)[None]).mean()), 3
        ),
    }


def main(store: Path, names: list[str]) -> None:
    """Measure the given matrices."""
    matrices = load_result("landing")
    for name in names:
        matrices[name] = measure_matrix(StoredModels.of(name, store))
        save_result("landing", matrices)


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("store", type=Path)
    command_line.add_argument("names", nargs="+", metavar="SPEC")
    main(**vars(command_line.parse_args()))
