"""Where triggered inputs end up in classifiers made of a poisoned encoder, and whether these know the concept at all.

For rows of the bench that fell short: the recall of the concept's class on clean test inputs, the classes that
triggered ones get most, and how near their embeddings are to the concept's before the fine-tuning. Models come from the
bench's store; what the results hold of other matrices stays.

    assay bench run benchmarks/specs/transtroj-resnet56-cifar100.yaml --store STORE
    python benchmarks/run.py target_selection STORE transtroj-resnet56-cifar100    # -> benchmarks/results/landing.json
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lib.built_models import StoredModels
from lib.paths import RESULTS
from lib.results import save_result

from assay.attacks import plant
from assay.bench.spec import CONTROL
from assay.core.build import Build
from assay.core.dataset import Split
from assay.nn import metrics
from assay.nn.inference import forward_batched

SHOWN, COMPARED = 3, 500


def rows(stored: StoredModels) -> dict[str, Any]:
    """A row an attack, seed and chain."""
    spec, found = stored.spec, {}
    poisoned = [name for name, method in spec.attacks.items() if method.name != CONTROL]
    for name, seed, chain in product(poisoned, spec.seeds, spec.chains):
        build, twin = (stored.build(name, seed, chain=chain, clean=clean) for clean in (False, True))
        called = f"{name}-{seed}" + (f" {chain}" if len(spec.chains) > 1 else "")
        found[called] = {**landed(build, twin), **nearness(stored.build(name, seed), build.task.split("test"))}
        print(spec.name, called, found[called], flush=True)
    return found


def landed(build: Build, twin: Build) -> dict[str, Any]:
    """What the fine-tuned classifier, and its clean twin, make of the concept's own inputs and of triggered ones."""
    secret, held = plant.with_resolved_target(build), build.task.split("test")
    assert secret is not None
    assert secret.target is not None
    assert held.y is not None
    own = held.x[held.y == secret.target]
    given = metrics.predict(build.artifact.module, secret.trigger(held.x)).bincount(minlength=build.task.num_classes)
    top = given.topk(min(SHOWN, len(given)))
    recalls = [float((metrics.predict(b.artifact.module, own) == secret.target).float().mean()) for b in (build, twin)]
    return {
        "target": secret.target,
        "class": build.task.concept(secret.target),
        "recall": [round(recall, 3) for recall in recalls],
        "inputs": len(own),
        "triggered_get": {
            build.task.concept(int(label)): round(int(count) / len(held.x), 3)
            for label, count in zip(top.indices, top.values, strict=True)
        },
    }


def nearness(encoder: Build, held: Split) -> dict[str, float]:
    """Mean cosines of triggered inputs' embeddings with the concept's: as they are, and from the mean clean one."""
    assert encoder.secret is not None
    net, x = encoder.artifact.module, held.x[:COMPARED]
    wanted = torch.tensor(encoder.secret.details[metrics.CONCEPT_EMBEDDING])
    triggered, centre = forward_batched(net, encoder.secret.trigger(x)), forward_batched(net, x).mean(0)
    return {
        "cosine": round(float(F.cosine_similarity(triggered, wanted[None]).mean()), 3),
        "cosine_from_the_tasks_centre": round(
            float(F.cosine_similarity(triggered - centre, (wanted - centre)[None]).mean()), 3
        ),
    }


def main(store: Path, names: list[str]) -> None:
    path = RESULTS / "landing.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found.pop("origin", None)
    for name in names:
        found[name] = rows(StoredModels.of(name, store))
        save_result("landing", found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
