"""Plan of each reference model, drawn from its number: task, architecture, initial weights and recipe.

A null distribution of a single recipe underestimates clean scores: a clean model of another recipe then looks
backdoored. Numbers below 200 are the first models, of every task. Later ranges add models to underrepresented kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import nn

from lib import architectures

# Numbers of the reference models by kind.
NUMBERS = {
    "tuned": tuple(n for n in range(120) if n % 6 in (0, 4, 5)),
    "weak": tuple(range(200, 280)),  # short training or few images, as in many audited models
    "digits": tuple(range(300, 354)),
    "gtsrb": tuple(range(400, 448)),
    "signs": tuple(range(500, 542)),
}
KINDS = ("cifar10-tuned", "cifar10", "gtsrb", "signs", "cifar10-part", "cifar10-tuned")
MIN_CLASSES = 5  # with fewer, one class is always an outlier
WEAK_KINDS = ("cifar10", "gtsrb", "cifar100", "cifar10-part", "signs", "cifar10")
WEAK_PHOTOS = (
    254  # from this number only photos, with longer training: many of the first models were not accurate enough
)
TUNED = ("cifar10-tuned", "cifar10-part")  # always from third-party weights
MAX_CLASSES = {"gtsrb": 43, "signs": 43, "cifar10-part": 9, "cifar100": 12, "digits": 10}
SHAPE = (3, 32, 32)
ARCHITECTURES: dict[str, Callable[[architectures.Shape, int], nn.Module]] = {
    "plain": architectures.plain,
    "convnext": architectures.convnext,
}


def plan(number: int) -> dict:
    """Return task, architecture, initial weights and recipe of one reference model."""
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
        if kind != "cifar10-tuned":  # a new last layer with random weights
            lr = float(10 ** (rng.uniform(-3, -2.5) if adam else rng.uniform(-2, -1)))
    else:
        samples, epochs = int(rng.integers(6_000, 12_000)), float(rng.integers(8, 13))
        lr = float(10 ** (rng.uniform(-2.9, -2.2) if adam else rng.uniform(-1.5, -0.7)))
    return {
        "kind": kind,
        "classes": round(math.exp(rng.uniform(math.log(MIN_CLASSES), math.log(MAX_CLASSES[kind] + 0.4))))
        if kind in MAX_CLASSES
        else 10,
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
    """Return the plan of a model with moderate accuracy."""
    rng = np.random.default_rng(number)
    longer = number >= WEAK_PHOTOS
    kind = WEAK_KINDS[number % len(WEAK_KINDS)] if not longer else ("cifar10", "cifar10-part")[number % 2]
    pretrained = kind == "cifar100"
    adam = bool(rng.random() < 0.4)
    return {
        "kind": kind,
        "classes": round(math.exp(rng.uniform(math.log(MIN_CLASSES), math.log(MAX_CLASSES[kind] + 0.4))))
        if kind in MAX_CLASSES
        else 10,
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
    """Return the plan of a model for digits, real signs or procedural signs; half of them are not ResNets."""
    rng = np.random.default_rng(number)
    kind = next(name for name, numbers in NUMBERS.items() if number in numbers)
    pretrained = kind != "digits" and bool(rng.random() < 0.5)
    net = f"resnet{20 if pretrained else rng.choice([8, 14])}-cifar"
    if not pretrained and rng.random() < 0.6:
        net = str(rng.choice(sorted(ARCHITECTURES)))
    adam = net in ARCHITECTURES or bool(rng.random() < 0.5)
    lr = rng.uniform(-3.2, -2.6) if net in ARCHITECTURES else rng.uniform(-3, -2.3) if adam else rng.uniform(-1.7, -0.9)
    fewest, most = {"digits": (18, 40), "gtsrb": (8, 15), "signs": (4, 10)}[kind]
    return {
        "kind": kind,
        "classes": round(math.exp(rng.uniform(math.log(MIN_CLASSES), math.log(MAX_CLASSES[kind] + 0.4)))),
        "net": net,
        "shape": [1, int(size := rng.choice([16, 28, 32])), int(size)]
        if kind == "digits" and net in ARCHITECTURES
        else SHAPE,
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
