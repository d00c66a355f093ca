"""What removing a backdoor leaves behind: backdoor sequela.

Sha, He, Berrang, Humbert, Zhang: Fine-Tuning Is All You Need to Mitigate Backdoor Attacks, 2022, arXiv 2212.09067. The
term is theirs; the paper's exact measures were not at hand, so these are ours, on the models of
benchmarks/specs/transtroj-mended.yaml before and after each of its mitigations:

* membership: AUC with which the loss tells pictures that the classifier was fine-tuned on from unseen ones (0.5: not
  at all). The mitigations see the calibration split only.
* reinjection: steps of training with poisoned pictures (BadNets, another trigger and class) until ASR is 90 %, beside
  those that the clean chain takes after the same mitigation.

    assay bench run benchmarks/specs/transtroj-mended.yaml --store STORE
    python benchmarks/run.py after_mitigation STORE          # -> benchmarks/results/sequela.json
"""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from lib.built_models import StoredModels
from lib.results import save_result
from lib.statistics import auc
from torch import nn

from assay.attacks import BadNets, plant
from assay.bench.spec import Method
from assay.bench.worker import apply_mitigation
from assay.core.build import Build
from assay.core.dataset import Split
from assay.nn import metrics
from assay.nn.inference import forward_batched
from assay.stages.train import FitOptions, Recipe, fit
from assay.triggers import Patch

SPEC = "transtroj-mended"
AGAIN = BadNets(target=1, ratio=0.1, patch=Patch(size=4))
RECIPE = Recipe(
    epochs=9.6, lr=0.005, batch_size=64, augment=False, freeze_batchnorm=True
)  # 600 steps of 4,000 pictures
EVERY, LOOKED_AT, ENOUGH, IN_A_ROW = 10, 300, 0.9, 3
SEED, MITIGATIONS = 1, ("fine-tune", "super-fine-tune", "universal")


def membership(build: Build) -> dict[str, float] | None:
    """AUC of the loss as a sign of a picture's having been trained on."""
    seen, unseen = build.task.split("train"), build.task.split("test")
    return auc((-losses(build.artifact.module, seen)).tolist(), (-losses(build.artifact.module, unseen)).tolist())


def losses(net: nn.Module, split: Split) -> torch.Tensor:
    assert split.y is not None
    return F.cross_entropy(forward_batched(net, split.x), split.y, reduction="none")


def reinjection(build: Build, seed: int) -> int | None:
    """The first step, of those looked at, from which on BadNets keeps its ASR for ``IN_A_ROW`` looks; None: never.

    In the first steps a net may say the target for a moment, whatever it is shown.
    """
    train, held = build.task.split("train"), build.task.split("test").sample(LOOKED_AT, seed=seed)
    poisoned, secret = AGAIN.poison(train, build.task.num_classes, seed=seed), AGAIN.secret()
    net, steps, held_since, looks = copy.deepcopy(build.artifact.module), 0, None, 0

    def looked() -> None:
        nonlocal steps, held_since, looks
        steps += 1
        if looks < IN_A_ROW and steps % EVERY == 0:
            trained = copy.deepcopy(net)
            rate = metrics.attack_success(trained, held, secret, num_classes=build.task.num_classes)
            looks, held_since = (looks + 1, held_since or steps) if rate.value >= ENOUGH else (0, None)

    fit(net, poisoned, RECIPE, seed=seed, options=FitOptions(on_step_end=looked))
    return held_since if looks == IN_A_ROW else None


def main(store: Path) -> None:
    stored = StoredModels.of(SPEC, store)
    (attack,), (chain,) = stored.spec.attacks, stored.spec.chains
    mitigations = stored.spec.mitigations
    repairs: dict[str, tuple[Method, ...]] = {"none": (), **{name: mitigations[name] for name in MITIGATIONS}}
    rows = []
    for seed in (SEED,):
        pair = {
            which: stored.build(attack, seed, chain=chain, clean=which == "clean") for which in ("poisoned", "clean")
        }
        secret = plant.with_resolved_target(pair["poisoned"])
        assert secret is not None
        for name, repair in repairs.items():
            after = {which: apply_mitigation(build, repair, seed=seed) for which, build in pair.items()}
            held = pair["poisoned"].task.split("test")
            measured = metrics.measure(after["poisoned"].artifact.module, held, secret, num_classes=10)
            row = {
                "seed": seed,
                "mitigation": name,
                "clean_accuracy": measured.clean_accuracy.to_json(),
                "attack_success": measured.attack_success.to_json(),
                "membership": {which: membership(build) for which, build in after.items()},
                "steps_to_reinject": {which: reinjection(build, seed) for which, build in after.items()},
            }
            rows.append(row)
            print(
                seed,
                name,
                row["steps_to_reinject"],
                {k: round(v["auc"], 3) for k, v in row["membership"].items()},
                flush=True,
            )
    save_result("sequela", {"reinjected": {**AGAIN.spec(), "recipe": asdict(RECIPE)}, "models": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
