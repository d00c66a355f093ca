"""What removing a backdoor leaves behind: backdoor sequela.

Sha, He, Berrang, Humbert, Zhang: Fine-Tuning Is All You Need to Mitigate Backdoor Attacks, 2022, arXiv 2212.09067. The
term is theirs; the paper's exact measures were not at hand, so these are ours, on the models of
benchmarks/specs/transtroj-mended.yaml before and after each of its mitigations:

* membership: AUC with which the loss tells pictures that the classifier was fine-tuned on from unseen ones (0.5: not
  at all). The mitigations see the calibration split only.
* reinjection: steps of training with poisoned pictures (BadNets, another trigger and class) until ASR is 90 %, beside
  those that the clean chain takes after the same mitigation.

    assay bench run benchmarks/specs/transtroj-mended.yaml --store STORE
    python benchmarks/sequela.py STORE          # -> benchmarks/results/sequela.json
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from common import auc, save
from torch import nn

from assay import metrics, planting
from assay.artifact import Build
from assay.attacks import BadNets
from assay.bench.cells import clean_twin
from assay.bench.inputs import located, with_whole_paths
from assay.bench.matrix import read
from assay.bench.spec import PLACE, Method, Spec
from assay.bench.work import model_of, repaired
from assay.blobs import Blobs
from assay.chain import Cache
from assay.models.predict import logits
from assay.stages.train import Recipe, fit
from assay.task import Split
from assay.triggers import Patch

FOLDER = Path(__file__).resolve().parents[1]
SPEC = FOLDER / "benchmarks/specs/transtroj-mended.yaml"
AGAIN = BadNets(target=1, ratio=0.05, patch=Patch(size=4))
RECIPE = Recipe(epochs=3.2, lr=0.002, batch_size=64, mirror=True, freeze_batchnorm=True)  # 200 steps of 4,000 pictures
EVERY, LOOKED_AT, ENOUGH = 5, 500, 0.9
SEED, MITIGATIONS = 1, ("fine-tune", "super-fine-tune", "universal")


@dataclass(frozen=True)
class Models:
    """The poisoned chain and its clean twin, from the bench's cache."""

    spec: Spec
    cache: Cache

    def build(self, seed: int, *, poisoned: bool) -> Build:
        task = located(self.spec.tasks[0], str(FOLDER))
        (attack,) = self.spec.attacks.values()
        method = attack.trained_by(task.recipe)
        (chain,) = self.spec.chains.values()
        steps = [with_whole_paths(method if step == Method(PLACE) else step, str(FOLDER)) for step in chain]
        return model_of(task, tuple(steps) if poisoned else clean_twin(tuple(steps)), seed, self.cache)


def membership(build: Build) -> dict[str, float] | None:
    """AUC of the loss as a sign of a picture's having been trained on."""
    seen, unseen = build.task.split("train"), build.task.split("test")
    return auc((-losses(build.artifact.net, seen)).tolist(), (-losses(build.artifact.net, unseen)).tolist())


def losses(net: nn.Module, split: Split) -> torch.Tensor:
    assert split.y is not None
    return F.cross_entropy(logits(net, split.x), split.y, reduction="none")


def reinjection(build: Build, seed: int) -> int | None:
    """The first step, of those looked at, after which BadNets has its ASR; None where it never comes to it."""
    train, held = build.task.split("train"), build.task.split("test").sample(LOOKED_AT, seed=seed)
    poisoned, secret = AGAIN.poison(train, build.task.num_classes, seed=seed), AGAIN.secret()
    net, steps, reached = copy.deepcopy(build.artifact.net), 0, None

    def looked() -> None:
        nonlocal steps, reached
        steps += 1
        if reached is None and steps % EVERY == 0:
            trained = copy.deepcopy(net)
            rate = metrics.attack_success(trained, held, secret, num_classes=build.task.num_classes)
            reached = steps if rate.value >= ENOUGH else None

    fit(net, poisoned, RECIPE, seed=seed, stepped=looked)
    return reached


def main(store: Path) -> None:
    spec = read(SPEC)
    models = Models(spec, Cache(Blobs(str(store / "models"))))
    repairs: dict[str, tuple[Method, ...]] = {"none": (), **{name: spec.mitigations[name] for name in MITIGATIONS}}
    rows = []
    for seed in (SEED,):
        pair = {"poisoned": models.build(seed, poisoned=True), "clean": models.build(seed, poisoned=False)}
        secret = planting.landed(pair["poisoned"])
        assert secret is not None
        for name, repair in repairs.items():
            after = {which: repaired(build, repair, seed=seed) for which, build in pair.items()}
            held = pair["poisoned"].task.split("test")
            measured = metrics.measure(after["poisoned"].artifact.net, held, secret, num_classes=10)
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
    save("sequela", {"reinjected": AGAIN.spec(), "models": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
