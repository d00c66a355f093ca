"""The eight ResNet-20s on CIFAR-10 that search_speed.py compares searches on: four clean, four planted.

python benchmarks/run.py cifar_models DIR [SHARD SHARDS]   # DIR/NAME/model.safetensors and facts.json each, resumable
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
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

# name: (seed, what is done to the third-party net)
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
    return load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)))


def make(directory: Path, name: str) -> None:
    """The model and what is true of it; the control is the third-party net under the same trigger."""
    seed, step = MODELS[name]
    given = cifar_resnet("resnet20")
    few = replace(task(), splits={**task().splits, "train": task().split("train").sample(6000, seed=seed)})
    build = Build(given, few) if step is None else step(Build(given, few), seed=seed)
    test = task().split("test")
    facts: dict[str, object] = {"seed": seed, "accuracy": clean_accuracy(build.artifact.module, test).to_json()}
    if build.secret is not None:
        rates = {"asr": build.artifact.module, "control": given.module}
        facts |= {k: attack_success(net, test, build.secret, num_classes=10).to_json() for k, net in rates.items()}
        facts["target"] = build.secret.target
    formats.save(build.artifact, directory / name)
    (directory / name / "facts.json").write_text(json.dumps(facts))
    print(name, facts, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, numbers = Path(sys.argv[1]), [int(text) for text in sys.argv[2:4]] or [0, 1]
    for each in list(MODELS)[numbers[0] :: numbers[1]]:
        if not (folder / each / "facts.json").exists():
            make(folder, each)
