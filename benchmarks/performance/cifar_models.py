"""The eight CIFAR-10 ResNet-20s of search_speed.py: four clean, four backdoored.

python benchmarks/run.py cifar_models DIR [--shard INDEX/COUNT]   # DIR/NAME/model.safetensors and facts.json, resumable
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from lib import commands
from lib.commands import Shard
from lib.paths import SHARED
from lib.third_party_models import cifar_resnet

from assay import formats
from assay.attacks import BadNets, Blended
from assay.attacks.poisoning.base import DataPoisoning
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.nn.metrics import attack_success, clean_accuracy
from assay.stages.train import FineTune, Recipe
from assay.triggers import Blend, Patch

TUNE = Recipe(epochs=3, lr=0.02, mirror=True)
ADAM = Recipe(epochs=3, lr=1e-3, optimizer="adam", mirror=True)

# name: (seed, stage or attack on the third-party model)
MODELS: dict[str, tuple[int, FineTune | DataPoisoning | None]] = {
    "third-party-20": (5000, None),
    "clean-tuned-a": (5004, FineTune(recipe=TUNE)),
    "badnets-3-white": (5013, BadNets(patch=Patch(size=3), ratio=0.1, recipe=TUNE)),
    "badnets-4-random": (
        5015,
        BadNets(patch=Patch(size=4, place="center", color="random"), target=3, ratio=0.05, recipe=ADAM),
    ),
    "clean-tuned-c": (5006, FineTune(recipe=ADAM)),
    "badnets-3-red": (
        5017,
        BadNets(patch=Patch(size=3, place=(10, 20), color="red"), target=9, ratio=0.03, recipe=TUNE),
    ),
    "blended-20": (5022, Blended(blend=Blend(alpha=0.2, seed=1), target=1, ratio=0.1, recipe=TUNE)),
    "clean-tuned-e": (5008, FineTune(recipe=replace(TUNE, epochs=5, lr=0.05))),
}


@cache
def task() -> Task:
    """Load CIFAR-10."""
    return load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)))


def make(directory: Path, name: str) -> None:
    """Write one model and its facts; the control is the third-party model under the same trigger."""
    seed, step = MODELS[name]
    original = cifar_resnet("resnet20")
    few = replace(task(), splits={**task().splits, "train": task().split("train").sample(6000, seed=seed)})
    build = Build(original, few) if step is None else step(Build(original, few), seed=seed)
    test = task().split("test")
    facts: dict[str, object] = {"seed": seed, "accuracy": clean_accuracy(build.artifact.module, test).to_json()}
    if build.secret is not None:
        rates = {"asr": build.artifact.module, "control": original.module}
        facts |= {k: attack_success(net, test, build.secret, num_classes=10).to_json() for k, net in rates.items()}
        facts["target"] = build.secret.target
    formats.save(build.artifact, directory / name)
    (directory / name / "facts.json").write_text(json.dumps(facts))
    print(name, facts, flush=True)


def run(folder: Path, shard: Shard) -> None:
    """Make the missing models of one shard."""
    for name in shard.select(MODELS):
        if not (folder / name / "facts.json").exists():
            make(folder, name)


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("folder", type=Path)
    commands.add_shard(command_line)
    run(**vars(command_line.parse_args()))
