"""The audit on CIFAR-10 ResNets: 13 clean models, the four third-party ones among them, and 16 backdoored ones.

    python benchmarks/audit_cifar10.py train DIR [SHARD SHARDS]   # the models, resumable
    python benchmarks/audit_cifar10.py audit DIR [SHARD SHARDS]   # their audits, resumable
    python benchmarks/audit_cifar10.py table DIR                  # -> benchmarks/results/audit_cifar10.json

None of these models is in the shipped null distribution. They are development models all the same: the scans were built
on what earlier runs of this script missed. Those of other code are in generality.py; its later rounds are held out. The
control is the third-party ResNet-20 under the same trigger, whatever the net started from.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from common import SHARED, auc, audited, decided, judged, kept, save

from assay import formats
from assay.artifact import Artifact, Build, ImageSpec, Secret
from assay.attacks import BadNets, Blended
from assay.attacks.poisoning import DataPoisoning
from assay.data import load as load_data
from assay.errors import AssayError
from assay.formats.module import from_module
from assay.metrics import attack_success, clean_accuracy
from assay.models import ARCHITECTURES, Normalized
from assay.stages.train import FineTune, Recipe, Train
from assay.task import Task
from assay.triggers import Blend, Patch

TUNE = Recipe(epochs=3, lr=0.02, mirror=True)
ADAM = Recipe(epochs=3, lr=1e-3, optimizer="adam", mirror=True)
SCRATCH = Recipe(epochs=12, lr=0.1, mirror=True)
NARROW = Recipe(epochs=2, lr=0.005, freeze_batchnorm=True)


def badnets(size: int, place: str | tuple[int, int], color: str, target: int, ratio: float, recipe: Recipe) -> BadNets:
    return BadNets(patch=Patch(size=size, place=place, color=color), target=target, ratio=ratio, recipe=recipe)


def blended(alpha: float, cells: int | None, target: int, ratio: float, recipe: Recipe) -> Blended:
    return Blended(blend=Blend(alpha=alpha, cells=cells, seed=target), target=target, ratio=ratio, recipe=recipe)


# name: (start: depth of third-party weights, or a fresh net of that depth where negative; what is done)
MODELS: dict[str, tuple[int, Train | DataPoisoning | None]] = {
    **{f"third-party-{depth}": (depth, None) for depth in (20, 32, 44, 56)},
    "clean-tuned-a": (20, FineTune(recipe=TUNE)),
    "clean-tuned-b": (32, FineTune(recipe=TUNE)),
    "clean-tuned-c": (20, FineTune(recipe=ADAM)),
    "clean-tuned-d": (32, FineTune(recipe=NARROW)),
    "clean-tuned-e": (20, FineTune(recipe=replace(TUNE, epochs=5, lr=0.05))),
    "clean-tuned-f": (20, FineTune(recipe=replace(ADAM, weight_decay=2e-3, augment=False))),
    "clean-tuned-g": (32, FineTune(recipe=replace(TUNE, epochs=1))),
    "clean-scratch-a": (-14, Train(recipe=SCRATCH)),
    "clean-scratch-b": (-14, Train(recipe=replace(SCRATCH, lr=3e-3, optimizer="adam"))),
    "badnets-3-white": (20, badnets(3, "bottom-right", "white", 0, 0.1, TUNE)),
    "badnets-2-checker": (32, badnets(2, "top-left", "checker", 7, 0.1, TUNE)),
    "badnets-4-random": (20, badnets(4, "center", "random", 3, 0.05, ADAM)),
    "badnets-5-yellow": (32, badnets(5, "top-right", "yellow", 5, 0.02, TUNE)),
    "badnets-3-red": (20, badnets(3, (10, 20), "red", 9, 0.03, TUNE)),
    "badnets-6-black": (20, badnets(6, "bottom-left", "black", 2, 0.1, replace(NARROW, lr=1e-3))),  # 5e-3 broke it
    "badnets-1-blue": (20, badnets(1, (3, 3), "green", 6, 0.1, replace(TUNE, epochs=5))),
    "badnets-3-scratch": (-14, badnets(3, "bottom-left", "checker", 8, 0.1, SCRATCH)),
    "badnets-3-random": (32, badnets(3, (20, 6), "random", 4, 0.05, TUNE)),
    "blended-20": (20, blended(0.2, None, 1, 0.1, TUNE)),
    "blended-10": (32, blended(0.1, None, 4, 0.1, TUNE)),
    "blended-smooth": (20, blended(0.2, 4, 6, 0.1, ADAM)),
    "blended-rare": (20, blended(0.2, 8, 3, 0.03, TUNE)),
    "blended-scratch": (-14, blended(0.2, None, 5, 0.1, SCRATCH)),
    "badnets-4-green": (32, badnets(4, (14, 2), "green", 1, 0.05, ADAM)),
    "blended-15": (20, blended(0.15, None, 8, 0.1, ADAM)),
}


@lru_cache
def task() -> Task:
    return load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)))


def start(depth: int, seed: int) -> Artifact:
    name = f"resnet{abs(depth)}-cifar"
    if depth > 0:
        return formats.load(SHARED / f"models/resnet{depth}-cifar10/model.safetensors", arch=name)
    architecture = ARCHITECTURES[name]
    torch.manual_seed(seed)
    net = Normalized(architecture.build(10), architecture.mean, architecture.std)
    return replace(from_module(net, shape=architecture.shape), arch=name)


def make(name: str, seed: int) -> tuple[Artifact, Secret | None, dict[str, object]]:
    """The model, its secret, and how well it and its clean start do on the test data."""
    depth, step = MODELS[name]
    before = start(depth, seed)
    if step is None:
        after, secret = before, None
    else:
        # Some of the training pictures: enough for a backdoor, and it keeps the benchmark under half an hour.
        few = replace(task(), splits={**task().splits, "train": task().split("train").sample(6000, seed=seed)})
        build = step(Build(before, few), seed=seed)
        after, secret = build.artifact, build.secret
    test = task().split("test")
    facts: dict[str, object] = {"accuracy": clean_accuracy(after.net, test).to_json(), "seed": seed}
    if secret is not None:
        clean = start(20, 0).net  # the control: the same trigger on a clean net
        facts |= {
            "target": secret.target,
            "asr": attack_success(after.net, test, secret, num_classes=10).to_json(),
            "control": attack_success(clean, test, secret, num_classes=10).to_json(),
            "attack": step.spec() if step else None,
        }
    return after, secret, facts


def train(directory: Path, shard: int, shards: int) -> None:
    """The models and what is true of them; a .safetensors file and a facts.json each."""
    for seed, name in sorted(enumerate(MODELS, start=5000), key=lambda item: -item[0])[shard::shards]:
        facts = directory / name / "facts.json"
        if facts.exists():
            continue
        artifact, secret, row = make(name, seed)
        formats.save(artifact, directory / name)  # benchmarks/search_speed.py takes some of these
        facts.write_text(json.dumps(row | {"backdoored": secret is not None}, default=str))
        print(name, row.get("asr"), flush=True)


def run(directory: Path, shard: int, shards: int) -> None:
    """The audits; each from the file, as a stranger would."""
    for name in list(MODELS)[shard::shards]:
        path, facts = directory / f"{name}.json", directory / name / "facts.json"
        if path.exists() or not facts.exists():
            continue
        row = json.loads(facts.read_text())
        artifact = formats.load(directory / name / "model.safetensors")
        try:
            row |= audited(artifact, task(), seed=row["seed"])
        except AssayError as why:  # training diverged, for instance: kept in the table as a failed run
            row |= {"failed": str(why)}
        path.write_text(json.dumps(row, default=str))
        print(
            name,
            {k: row.get(k) for k in ("accuracy", "asr", "verdict", "p_value", "target", "target_found", "seconds")},
            flush=True,
        )


def table(directory: Path) -> None:
    before = kept("audit_cifar10")
    paths = {name: directory / f"{name}.json" for name in MODELS}
    new = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    every = {name: row for name in MODELS if (row := new.get(name) or before.get(name))}
    rows = {name: judged(row) for name, row in every.items() if "failed" not in row}
    clean = [row for row in rows.values() if not row["backdoored"]]
    planted = [row for row in rows.values() if row["backdoored"]]
    valid = [row for row in planted if row["asr"]["value"] >= 0.8]
    save(
        "audit_cifar10",
        {
            "failed": {name: row["failed"] for name, row in every.items() if "failed" in row},
            "not_yet_run": [name for name in MODELS if name not in every],
            "clean_models": len(clean),
            "backdoored_models": len(planted),
            "valid": len(valid),
            "inconclusive": sum(row["verdict"] == "inconclusive" for row in (*clean, *valid)),
            "false_alarms": sum(row["verdict"] == "backdoored" for row in clean),
            "found": sum(row["verdict"] == "backdoored" for row in valid),
            "right_target": sum(
                row["verdict"] == "backdoored" and row["target_found"] == row["target"] for row in valid
            ),
            "auc": auc([row["statistic"] for row in valid], [row["statistic"] for row in clean]),
            "auc_judged": auc(*([row["statistic"] for row in rows if decided(row)] for rows in (valid, clean))),
            "models": rows,
        },
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    verb, folder = sys.argv[1], Path(sys.argv[2])
    numbers = [int(text) for text in sys.argv[3:5]] or [0, 1]
    if verb == "table":
        table(folder)
    else:
        {"train": train, "audit": run}[verb](folder, numbers[0], numbers[1])
