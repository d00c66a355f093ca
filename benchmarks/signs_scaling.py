"""How the audit's time grows with the number of classes: signs with 10, 100, 1,000, a target planted in each.

python benchmarks/signs_scaling.py DIR      # -> benchmarks/results/signs_scaling.json; resumable by model
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from common import audited, save

from assay import formats
from assay.artifact import Build
from assay.attacks import BadNets
from assay.formats.module import from_module
from assay.metrics import attack_success, clean_accuracy
from assay.models import ARCHITECTURES, Normalized
from assay.stages.train import Recipe, Train
from assay.synth.signs import signs
from assay.task import Task
from assay.triggers import Patch

ARCH = "resnet20-cifar"
TARGETS = {10: 7, 100: 42, 1000: 731}


def plant(task: Task, target: int | None) -> Build:
    """A net trained on signs, with BadNets where there is a target."""
    architecture = ARCHITECTURES[ARCH]
    torch.manual_seed(task.num_classes)
    net = Normalized(architecture.build(task.num_classes), architecture.mean, architecture.std)
    artifact = replace(from_module(net, shape=architecture.shape, class_names=task.class_names), arch=ARCH)
    samples = len(task.split("train"))
    recipe = Recipe(epochs=max(4.0, 60_000 / samples), lr=0.1)
    if target is None:
        return Train(recipe=recipe)(Build(artifact, task), seed=1)
    return BadNets(patch=Patch(size=3), target=target, ratio=0.1, recipe=recipe)(Build(artifact, task), seed=1)


def measure(classes: int, backdoored: bool, directory: Path) -> dict[str, object]:
    task = signs(classes, per_class=600 if classes == 10 else None)
    build = plant(task, TARGETS[classes] if backdoored else None)
    formats.save(build.artifact, directory / f"signs-{classes}-{'planted' if backdoored else 'clean'}")
    row: dict[str, object] = {"accuracy": clean_accuracy(build.artifact.net, task.split("test")).to_json()}
    if build.secret is not None:
        row["target"] = build.secret.target
        row["asr"] = attack_success(build.artifact.net, task.split("test"), build.secret, num_classes=classes).to_json()
    return row | audited(build.artifact, task)


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict] = {}
    for backdoored in (True, False):
        for classes in TARGETS:
            name = f"{classes}-{'planted' if backdoored else 'clean'}"
            path = directory / f"{name}.json"
            if not path.exists():
                path.write_text(json.dumps(measure(classes, backdoored, directory)))
            rows[name] = json.loads(path.read_text())
            print(name, {k: v for k, v in rows[name].items() if k != "findings"}, flush=True)
    seconds = {n: rows[f"{n}-planted"]["seconds"] for n in TARGETS}
    save(
        "signs_scaling", {"threads": torch.get_num_threads(), "time_ratio": seconds[1000] / seconds[10], "models": rows}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
