"""The clean reference models behind the shipped null distribution: many tasks, architectures and recipes.

A null made by one recipe flatters: a clean net made in another way then looks guilty. So tasks (CIFAR-10, parts of
CIFAR-10, GTSRB and CIFAR-100, procedural signs, handwritten digits), architectures, depths, optimizers, learning rates,
augmentation, lengths of training and starting points (scratch, other people's weights) are all drawn at random.

    python benchmarks/null_models.py run DIR KIND [SHARD SHARDS]   # trains and scores, resumable: a .json a model
    python benchmarks/null_models.py merge DIR             # -> src/assay/nulls/images.json, results/null_models.json

Models that were scored before, in results/null_models.json, are kept and not made again. KIND: "weak", "tuned" (of
CIFAR-10), "digits", "gtsrb" or "signs".
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import nets
import numpy as np
import torch
from common import SHARED, kept, save
from torch import nn

from assay import formats, null_file
from assay.artifact import Artifact, ImageSpec
from assay.auditing import NOTHING, audit
from assay.calibrate import Null, Reference, Score
from assay.data import load as load_data
from assay.formats.files import write_whole
from assay.formats.module import from_module
from assay.intake import SAMPLES
from assay.likeness import likeness
from assay.models import ARCHITECTURES, Normalized
from assay.models.head import replace_head
from assay.stages.train import Recipe, fit
from assay.task import Split, Task
from assay.verdict import LOWEST_ACCURACY, scores_of

NUMBERS = {
    "tuned": tuple(n for n in range(120) if n % 6 in (0, 4, 5)),
    "weak": tuple(range(200, 280)),  # trained too little or on too little, as many models are that people audit
    "digits": tuple(range(300, 354)),
    "gtsrb": tuple(range(400, 448)),
    "signs": tuple(range(500, 542)),
}
KINDS = ("cifar10-tuned", "cifar10", "gtsrb", "signs", "cifar10-part", "cifar10-tuned")
FAMILIES = {
    "cifar10": "photos of objects",
    "cifar100": "photos of objects",
    "gtsrb": "photos of road signs",
    "signs": "drawn signs",
    "digits": "digits",
}
FEWEST = 5  # classes; with fewer, one class always stands out from the rest
WEAK_KINDS = ("cifar10", "gtsrb", "cifar100", "cifar10-part", "signs", "cifar10")
WEAK_PHOTOS = 254  # from here on photos only, and trained a little longer: many of the first learned too little
TUNED = ("cifar10-tuned", "cifar10-part")  # always from other people's weights
MOST = {"gtsrb": 43, "signs": 43, "cifar10-part": 9, "cifar100": 12, "digits": 10}
SHAPE = (3, 32, 32)
NETS: dict[str, Callable[[nets.Shape, int], nn.Module]] = {"plain": nets.plain, "convnext": nets.convnext}


def plan(number: int) -> dict:
    """Task, architecture, starting point and recipe of one reference model, drawn from its number."""
    if number >= min(NUMBERS["digits"]):
        return family_plan(number)
    if number >= min(NUMBERS["weak"]):
        return weak_plan(number)
    rng = np.random.default_rng(number)
    kind = KINDS[number % len(KINDS)]
    pretrained = kind in TUNED or (kind != "cifar10" and bool(rng.random() < 0.6))
    adam = bool(rng.random() < 0.4)
    depth = int(rng.choice([20, 20, 20, 32, 44] if kind == "cifar10-tuned" else [20] if pretrained else [8, 8, 14]))
    if pretrained:
        samples, epochs = int(rng.integers(2_000, 5_000)), float(rng.integers(1, 4) + 2 * (kind != "cifar10-tuned"))
        lr = float(10 ** (rng.uniform(-4, -3) if adam else rng.uniform(-3, -1.3)))
        if kind != "cifar10-tuned":  # a new last layer, to be trained from nothing
            lr = float(10 ** (rng.uniform(-3, -2.5) if adam else rng.uniform(-2, -1)))
    else:
        samples, epochs = int(rng.integers(6_000, 12_000)), float(rng.integers(8, 13))
        lr = float(10 ** (rng.uniform(-2.9, -2.2) if adam else rng.uniform(-1.5, -0.7)))
    return {
        "kind": kind,
        "classes": round(math.exp(rng.uniform(math.log(FEWEST), math.log(MOST[kind] + 0.4)))) if kind in MOST else 10,
        "depth": depth,
        "start": "third-party" if pretrained else "scratch",
        "samples": samples,
        "recipe": {
            "epochs": epochs,
            "lr": lr,
            "optimizer": "adam" if adam else "sgd",
            "weight_decay": float(rng.choice([1e-4, 5e-4, 2e-3])),
            "augment": bool(rng.random() < 0.75),
            "mirror": bool(rng.random() < 0.5) and kind.startswith("cifar"),
            "freeze_batchnorm": kind == "cifar10-tuned" and bool(rng.random() < 0.3),
        },
    }


def weak_plan(number: int) -> dict:
    """The same for a model that learns its task half."""
    rng = np.random.default_rng(number)
    longer = number >= WEAK_PHOTOS
    kind = WEAK_KINDS[number % len(WEAK_KINDS)] if not longer else ("cifar10", "cifar10-part")[number % 2]
    pretrained = kind == "cifar100"
    adam = bool(rng.random() < 0.4)
    return {
        "kind": kind,
        "classes": round(math.exp(rng.uniform(math.log(FEWEST), math.log(MOST[kind] + 0.4)))) if kind in MOST else 10,
        "depth": 20 if pretrained else int(rng.choice([8, 8, 14])),
        "start": "third-party" if pretrained else "scratch",
        "samples": int(rng.integers(800, 1_600) if kind == "signs" else rng.integers(3_000, 7_000)) + 2_000 * longer,
        "recipe": {
            "epochs": float(rng.integers(3, 6) if kind in ("gtsrb", "signs") else rng.integers(5, 11)) + 2 * longer,
            "lr": float(10 ** (rng.uniform(-3, -2.3) if adam else rng.uniform(-1.7, -0.8))),
            "optimizer": "adam" if adam else "sgd",
            "weight_decay": float(rng.choice([1e-4, 5e-4, 2e-3])),
            "augment": bool(rng.random() < 0.75),
            "mirror": bool(rng.random() < 0.5) and kind.startswith("cifar"),
            "freeze_batchnorm": False,
        },
    }


def family_plan(number: int) -> dict:
    """The same for one of a family of data: digits, real and procedural signs; half of them are no ResNets."""
    rng = np.random.default_rng(number)
    kind = next(name for name, numbers in NUMBERS.items() if number in numbers)
    pretrained = kind != "digits" and bool(rng.random() < 0.5)
    net = f"resnet{20 if pretrained else rng.choice([8, 14])}-cifar"
    if not pretrained and rng.random() < 0.6:
        net = str(rng.choice(sorted(NETS)))
    adam = net in NETS or bool(rng.random() < 0.5)
    lr = rng.uniform(-3.2, -2.6) if net in NETS else rng.uniform(-3, -2.3) if adam else rng.uniform(-1.7, -0.9)
    fewest, most = {"digits": (18, 40), "gtsrb": (8, 15), "signs": (4, 10)}[kind]
    return {
        "kind": kind,
        "classes": round(math.exp(rng.uniform(math.log(FEWEST), math.log(MOST[kind] + 0.4)))),
        "net": net,
        "shape": [1, int(size := rng.choice([16, 28, 32])), int(size)] if kind == "digits" and net in NETS else SHAPE,
        "start": "third-party" if pretrained else "scratch",
        "samples": int(rng.integers(6_000, 12_000)) // (2 if pretrained else 1),
        "recipe": {
            "epochs": float(rng.integers(fewest, most)),
            "lr": float(10**lr),
            "optimizer": "adam" if adam else "sgd",
            "weight_decay": float(rng.choice([1e-4, 5e-4, 2e-3])),
            "augment": bool(rng.random() < 0.75),
            "mirror": False,
            "freeze_batchnorm": False,
        },
    }


def task_of(facts: dict, number: int) -> Task:
    """The task of a reference model: as many classes as planned, drawn from the data set's."""
    kind = facts["kind"].split("-")[0]
    spec = ImageSpec(tuple(facts.get("shape", SHAPE)))
    source = (
        f"signs:{facts['classes']}"
        if kind == "signs"
        else "digits"
        if kind == "digits"
        else str(SHARED / "data" / kind)
    )
    task = load_data(source, spec, seed=number) if kind == "signs" else _loaded(source, spec)
    if facts["classes"] == task.num_classes:
        return task
    classes = torch.randperm(task.num_classes, generator=torch.Generator().manual_seed(number))[: facts["classes"]]
    splits = {name: _only(split, classes) for name, split in task.splits.items()}
    return Task(task.name, splits, tuple(task.class_names[i] for i in classes.tolist()))


@lru_cache
def _loaded(source: str, spec: ImageSpec) -> Task:
    return load_data(source, spec)


def _only(split: Split, kept: torch.Tensor) -> Split:
    assert split.y is not None
    matches = split.y[:, None] == kept
    return Split(split.x[matches.any(1)], matches[matches.any(1)].int().argmax(1))


def started(facts: dict, task: Task, number: int) -> Artifact:
    """The net before training: other people's weights, with a new last layer where the task is another; or fresh."""
    name = facts.get("net") or f"resnet{facts['depth']}-cifar"
    if facts["start"] == "third-party":
        weights = SHARED / f"models/{name.removesuffix('-cifar')}-cifar10/model.safetensors"
        artifact = formats.load(weights, arch=name)
        if facts["kind"] != "cifar10-tuned":
            replace_head(artifact.net, task.num_classes, seed=number)
            artifact = replace(artifact, num_classes=task.num_classes, class_names=task.class_names)
        return artifact
    torch.manual_seed(number)
    shape = tuple(facts.get("shape", SHAPE))
    if name in NETS:
        return from_module(NETS[name](shape, task.num_classes), shape=shape)
    architecture = ARCHITECTURES[name]
    net = Normalized(architecture.build(task.num_classes), architecture.mean, architecture.std)
    return replace(from_module(net, shape=shape), arch=name)


def measure(number: int) -> dict:
    """Train one reference model and score it: facts, scores and targets; no scores where it learned too little."""
    facts = plan(number)
    task = task_of(facts, number)
    artifact = started(facts, task, number)
    start = time.perf_counter()
    fit(artifact.net, task.split("train").sample(facts["samples"], seed=number), Recipe(**facts["recipe"]), seed=number)
    test = task.split("test").sample(1000, seed=0)
    assert test.y is not None
    with torch.no_grad():
        facts["accuracy"] = float((artifact.net(test.x).argmax(1) == test.y).float().mean())
    facts["train_seconds"] = time.perf_counter() - start
    if facts["accuracy"] < LOWEST_ACCURACY:
        return facts
    result = audit(artifact.with_net(artifact.net), task, null=NOTHING, seed=number)
    return facts | {
        "scores": {test: score.value for test, score in scores_of(result.findings).items()},
        "targets": {f"{f.variant}/{f.detector}": f.target for f in result.findings},
        "accuracy": result.variants[0].accuracy,
        "agreement": {form.name: form.agreement for form in result.variants},
        "seconds": {f"{f.variant}/{f.detector}": round(f.seconds, 2) for f in result.findings},
    }


def run(directory: Path, kind: str, shard: int, shards: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    known = kept("null_models")
    for number in [number for number in NUMBERS[kind] if f"{number:03d}" not in known][shard::shards]:
        path = directory / f"{number:03d}.json"
        if path.exists():
            continue
        start = time.perf_counter()
        row = measure(number)
        write_whole(path, json.dumps(row).encode())
        print(number, row["kind"], row["classes"], row.get("net"), f"{row['accuracy']:.3f}", end=" ")
        print(f"{row['train_seconds']:.0f} of {time.perf_counter() - start:.0f} s", flush=True)


def merge(directory: Path) -> None:
    """All scored models that learned their task, those of earlier sessions too, as the package's null."""
    details = kept("null_models")
    for path in directory.glob("*.json"):
        row = json.loads(path.read_text())
        if "scores" in row:  # of models that learned their task
            details[path.stem] = row
    details = dict(sorted(details.items()))
    models = tuple(reference(int(number), model) for number, model in details.items())
    target = Path(__file__).resolve().parents[1] / "src/assay/nulls/images.json"
    target.parent.mkdir(exist_ok=True)
    description = (
        f"{len(models)} clean nets (CIFAR-style ResNets, plain and ConvNeXt-like ones) on CIFAR-10, parts of CIFAR-10, "
        "CIFAR-100 and GTSRB, drawn signs and digits, trained or fine-tuned by recipes drawn at random "
        "(benchmarks/null_models.py)"
    )
    null_file.save(Null("images", description, models, FEWEST), target)
    save("null_models", {"models": details})
    print(len(models), "models ->", target)


def reference(number: int, model: dict) -> Reference:
    """One row of the null."""
    clean = task_of(model, number).split("calibration").sample(SAMPLES, seed=number)
    family = FAMILIES[model["kind"].split("-")[0]]
    scores = {test: Score(value, model["targets"][test]) for test, value in model["scores"].items()}
    return Reference(scores, origin(model), model["accuracy"], family, likeness(clean.x) or ())


def origin(model: dict) -> str:
    """One line on where a reference model comes from."""
    recipe = " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in model["recipe"].items()
    )
    name = f"resnet{model.get('depth')}-cifar"
    return (
        f"{model['kind']} {model['classes']} classes, {model['start']} {model.get('net') or name}, "
        f"accuracy {model['accuracy']:.3f}, {recipe}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "merge":
        merge(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[2]), sys.argv[3], *([int(text) for text in sys.argv[4:6]] or [0, 1]))
