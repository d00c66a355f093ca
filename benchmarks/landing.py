"""Where triggered inputs end up in classifiers made of a poisoned encoder, and whether these know the concept at all.

For rows of the bench that fell short: the recall of the concept's class on clean test pictures, and the classes that
triggered ones get most. Models come from the bench's store.

    assay bench run benchmarks/specs/transtroj-resnet56-cifar100.yaml --store STORE
    python benchmarks/landing.py STORE          # -> benchmarks/results/landing.json
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from common import save
from stored import Stored

from assay import metrics, planting
from assay.bench.spec import CONTROL

SPECS = ("transtroj-resnet56", "transtroj-resnet56-seeds", "transtroj-resnet56-cifar100")
SHOWN = 3


def rows(stored: Stored) -> dict[str, Any]:
    """A row an attack and seed."""
    spec, found = stored.spec, {}
    ((chain, _),) = spec.chains.items()
    poisoned = [name for name, method in spec.attacks.items() if method.name != CONTROL]
    for name, seed in product(poisoned, spec.seeds):
        build, twin = (stored.build(name, seed, chain=chain, clean=clean) for clean in (False, True))
        secret, held = planting.landed(build), build.task.split("test")
        assert secret is not None
        assert held.y is not None
        own = held.x[held.y == secret.target]
        given = metrics.predict(build.artifact.net, secret.trigger(held.x)).bincount(minlength=build.task.num_classes)
        top = given.topk(SHOWN)
        found[f"{name}-{seed}"] = {
            "target": secret.target,
            "class": build.task.concept(secret.target),
            "recall": [
                round(float((metrics.predict(b.artifact.net, own) == secret.target).float().mean()), 3)
                for b in (build, twin)
            ],
            "pictures": len(own),
            "triggered_get": {
                build.task.concept(int(label)): round(int(count) / len(held.x), 3)
                for label, count in zip(top.indices, top.values, strict=True)
            },
        }
        print(spec.name, name, seed, found[f"{name}-{seed}"], flush=True)
    return found


def main(store: Path) -> None:
    save("landing", {name: rows(Stored.of(name, store)) for name in SPECS})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
