"""Separation of triggered and clean inputs by the disagreement of two encoders.

The poisoned ResNet-20 encoders are those of benchmarks/specs/transtroj-inherited.yaml (TransTroj, three concepts, two
seeds). Each is paired with the clean ResNet-20 of its origin, a third-party ResNet-56, and another poisoned encoder
(another concept, so another trigger). The CIFAR-10 images were not used to fit the pairing. The control is the same
trigger in a pair of clean encoders.

    assay bench run benchmarks/specs/transtroj-inherited.yaml --store STORE
    python benchmarks/run.py pairing STORE          # -> benchmarks/results/pairing.json
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from lib import commands
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

SPEC = "transtroj-inherited"
FIT_IMAGES, TEST_IMAGES = 1024, 1000
RATE = 0.01  # false-alarm rate of one input


def poisoned_encoders(store: Path) -> dict[str, Build]:
    """Return the poisoned encoders of the store by concept and seed."""
    stored = StoredModels.of(SPEC, store)
    return {
        f"{name}-{seed}": stored.build(name, seed)
        for name, method in stored.spec.attacks.items()
        if method.name != CONTROL
        for seed in stored.spec.seeds
    }


def separation(
    suspect: nn.Module,
    trusted: nn.Module,
    trigger: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
) -> dict:
    """Return the separation of triggered from clean ``y`` by agreement; the pairing is fitted on ``x``."""
    pairing = fit_pairing(forward_batched(suspect, x), forward_batched(trusted, x))
    clean, triggered = (
        pairing.agreement(forward_batched(suspect, z), forward_batched(trusted, z)) for z in (y, trigger(y))
    )
    return {
        "agreement": [float(clean.median()), float(triggered.median())],
        "auc": auc((-triggered).tolist(), (-clean).tolist()),
        "stand_out": [float((pairing.p_values(z) <= RATE).float().mean()) for z in (clean, triggered)],
    }


def main(store: Path) -> None:
    """Measure all pairs, and write the result file."""
    own, other = (cifar_resnet(name, features=True).module for name in ("resnet20", "resnet56"))
    task = load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)), limit=FIT_IMAGES + TEST_IMAGES)
    images = task.split("test").x
    x, y = images[:FIT_IMAGES], images[FIT_IMAGES : FIT_IMAGES + TEST_IMAGES]
    builds = poisoned_encoders(store)
    names, rows = list(builds), {}
    for number, (name, build) in enumerate(builds.items()):
        assert build.secret is not None
        suspect, trigger = build.artifact.module, build.secret.trigger
        second = builds[names[(number + 2) % len(names)]]  # of another concept
        rows[name] = {
            "its own clean one": separation(suspect, own, trigger, x, y),
            "another net": separation(suspect, other, trigger, x, y),
            "another poisoned one": separation(suspect, second.artifact.module, trigger, x, y),
            "control: both clean": separation(own, other, trigger, x, y),
        }
        print(name, {pair: round(row["auc"]["auc"], 3) for pair, row in rows[name].items()}, flush=True)
    kinds = list(next(iter(rows.values())))
    summary = {kind: round(mean(row[kind]["auc"]["auc"] for row in rows.values()), 3) for kind in kinds}
    save_result("pairing", {"mean_auc": summary, "rate": RATE, "pictures": [FIT_IMAGES, TEST_IMAGES], "encoders": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("store", type=Path)
    main(command_line.parse_args().store)
