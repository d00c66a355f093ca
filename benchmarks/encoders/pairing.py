"""Two encoders on single inputs: are triggered ones told from clean ones where the two do not agree?

The poisoned ResNet-20 encoders of benchmarks/specs/transtroj-inherited.yaml (TransTroj, three concepts, two seeds),
each paired with the clean ResNet-20 that it was made from, with a ResNet-56 that others trained, and with another
poisoned one (another concept, so another trigger). Pictures of CIFAR-10, which no pairing was fitted on. The control is
the same trigger in a pair of which neither is poisoned.

    assay bench run benchmarks/specs/transtroj-inherited.yaml --store STORE
    python benchmarks/run.py pairing STORE          # -> benchmarks/results/pairing.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

import torch
from lib.built_models import StoredModels
from lib.paths import SHARED
from lib.results import save_result
from lib.statistics import auc
from lib.third_party_models import cifar_resnet
from torch import nn

from assay.bench.spec import CONTROL
from assay.core.build import Build
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.detectors.encoder.translation import fit_pairing
from assay.nn.inference import forward_batched
from assay.triggers import Trigger

SPEC = "transtroj-inherited"
CLEAN, TRIED = 1024, 1000
RATE = 0.01


def poisoned(store: Path) -> dict[str, Build]:
    """The poisoned encoders, as the bench keeps them, by concept and seed."""
    stored = StoredModels.of(SPEC, store)
    return {
        f"{name}-{seed}": stored.build(name, seed)
        for name, method in stored.spec.attacks.items()
        if method.name != CONTROL
        for seed in stored.spec.seeds
    }


def told(probe: nn.Module, trusted: nn.Module, trigger: Trigger, x: torch.Tensor, y: torch.Tensor) -> dict:
    """How well agreement tells triggered ``y`` from clean ones; the pairing is fitted on ``x``."""
    pairing = fit_pairing(forward_batched(probe, x), forward_batched(trusted, x))
    clean, triggered = (
        pairing.agreement(forward_batched(probe, z), forward_batched(trusted, z)) for z in (y, trigger(y))
    )
    return {
        "agreement": [float(clean.median()), float(triggered.median())],
        "auc": auc((-triggered).tolist(), (-clean).tolist()),
        "stand_out": [float((pairing.p_values(z) <= RATE).float().mean()) for z in (clean, triggered)],
    }


def main(store: Path) -> None:
    own, other = (cifar_resnet(name, features=True).module for name in ("resnet20", "resnet56"))
    task = load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)), limit=CLEAN + TRIED)
    pictures = task.split("test").x
    x, y = pictures[:CLEAN], pictures[CLEAN : CLEAN + TRIED]
    builds = poisoned(store)
    names, rows = list(builds), {}
    for number, (name, build) in enumerate(builds.items()):
        assert build.secret is not None
        net, trigger = build.artifact.module, build.secret.trigger
        second = builds[names[(number + 2) % len(names)]]  # of another concept
        rows[name] = {
            "its own clean one": told(net, own, trigger, x, y),
            "another net": told(net, other, trigger, x, y),
            "another poisoned one": told(net, second.artifact.module, trigger, x, y),
            "control: both clean": told(own, other, trigger, x, y),
        }
        print(name, {pair: round(row["auc"]["auc"], 3) for pair, row in rows[name].items()}, flush=True)
    kinds = list(next(iter(rows.values())))
    summary = {kind: round(mean(row[kind]["auc"]["auc"] for row in rows.values()), 3) for kind in kinds}
    save_result("pairing", {"mean_auc": summary, "rate": RATE, "pictures": [CLEAN, TRIED], "encoders": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
