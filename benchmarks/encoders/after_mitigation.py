"""Traces of a backdoor after mitigation ("backdoor sequela").

Sha, He, Berrang, Humbert, Zhang: Fine-Tuning Is All You Need to Mitigate Backdoor Attacks, 2022, arXiv 2212.09067. The
term is theirs. The paper's exact measures were not available. Our measures use the models of
benchmarks/specs/transtroj-mended.yaml, before and after each of its mitigations:

* membership: AUC of the loss for training images of the classifier against unseen images (0.5: no separation). The
  mitigations see the calibration split only.
* reinjection: training steps with poisoned images (BadNets, another trigger and class) until ASR is 90 %. The control
  is the clean chain after the same mitigation.

    assay bench run benchmarks/specs/transtroj-mended.yaml --store STORE
    python benchmarks/run.py after_mitigation STORE          # -> benchmarks/results/sequela.json
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lib import commands
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
REINJECTED = BadNets(target=1, ratio=0.1, patch=Patch(size=4))
# 600 steps of 4,000 images
RECIPE = Recipe(epochs=9.6, lr=0.005, batch_size=64, augment=False, freeze_batchnorm=True)
EVALUATE_EVERY = 10  # steps
EVALUATION_IMAGES = 300
MIN_SUCCESS = 0.9  # ASR of a reinjected backdoor
MIN_STREAK = 3  # evaluations in a row with that ASR
SEED, MITIGATIONS = 1, ("fine-tune", "super-fine-tune", "universal")


def membership(build: Build) -> dict[str, float] | None:
    """Return the AUC of the loss for membership of an image in the training data."""
    seen, unseen = build.task.split("train"), build.task.split("test")
    return auc((-losses(build.artifact.module, seen)).tolist(), (-losses(build.artifact.module, unseen)).tolist())


def losses(model: nn.Module, split: Split) -> torch.Tensor:
    """Return the cross-entropy (N,) of each sample."""
    assert split.y is not None
    return F.cross_entropy(forward_batched(model, split.x), split.y, reduction="none")


def reinjection(build: Build, seed: int) -> int | None:
    """Return the first step from which BadNets keeps its ASR for ``MIN_STREAK`` evaluations; None without one.

    In the first steps a model may predict the target for any input. A single evaluation is therefore not enough.
    """
    train, test = build.task.split("train"), build.task.split("test").sample(EVALUATION_IMAGES, seed=seed)
    triggered, labels = REINJECTED.choose_samples(train, build.task.num_classes, seed=seed)
    images, secret = train.x.clone(), REINJECTED.secret()
    images[triggered] = secret.trigger(images[triggered])
    poisoned = Split(images, labels)
    model, steps, first_success, streak = copy.deepcopy(build.artifact.module), 0, None, 0

    def evaluate() -> None:
        nonlocal steps, first_success, streak
        steps += 1
        if streak < MIN_STREAK and steps % EVALUATE_EVERY == 0:
            trained = copy.deepcopy(model)
            rate = metrics.attack_success(trained, test, secret, num_classes=build.task.num_classes)
            streak, first_success = (streak + 1, first_success or steps) if rate.value >= MIN_SUCCESS else (0, None)

    fit(model, poisoned, RECIPE, seed=seed, options=FitOptions(on_step_end=evaluate))
    return first_success if streak == MIN_STREAK else None


def main(store: Path) -> None:
    """Measure the traces after each mitigation, and write the result file."""
    stored = StoredModels.of(SPEC, store)
    (attack,), (chain,) = stored.spec.attacks, stored.spec.chains
    mitigations = stored.spec.mitigations
    chosen: dict[str, tuple[Method, ...]] = {
        "none": (),
        **{name: mitigations[name] for name in MITIGATIONS},
    }
    rows: list[dict[str, Any]] = []
    for seed in (SEED,):
        pair = {
            which: stored.build(attack, seed, chain=chain, clean=which == "clean") for which in ("poisoned", "clean")
        }
        secret = plant.with_resolved_target(pair["poisoned"])
        assert secret is not None
        for name, mitigation in chosen.items():
            after = {which: apply_mitigation(build, mitigation, seed=seed) for which, build in pair.items()}
            test = pair["poisoned"].task.split("test")
            measured = metrics.measure(after["poisoned"].artifact.module, test, secret, num_classes=10)
            row: dict[str, Any] = {
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
    save_result("sequela", {"reinjected": {**REINJECTED.spec(), "recipe": asdict(RECIPE)}, "models": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("store", type=Path)
    main(command_line.parse_args().store)
