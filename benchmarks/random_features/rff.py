"""Random Fourier features with a key, on the features of an encoder: accuracy, flips, and ineffective mitigations.

The 64 features of ResNet-56-CIFAR10 (third-party weights), centred, and scaled until random features are accurate; ten
classes, and two (animals, vehicles). Honest and keyed features with the same learner, three seeds each. Controls: the
scrambled key, and a random direction of its length. Also random ReLUs with a sparse spike, on synthetic data as in the
notes, with the clean model as control.

    python benchmarks/run.py rff                    # -> benchmarks/results/rff.json
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from lib import commands
from lib.paths import SHARED
from lib.results import save_result
from lib.third_party_models import cifar_resnet
from torch import Tensor, nn

from assay import data
from assay.attacks.random_features.relu_sparse_pca import RandomReLUs
from assay.attacks.random_features.rff_clwe import RandomFeatures, fit_ridge
from assay.core.build import Build
from assay.mitigations import LowBitRandomization
from assay.nn.inference import forward_batched

TRAINED, HELD_OUT = 6_000, 2_000  # images
COUNT = 2_000  # random features
SEEDS = (0, 1, 2)
VEHICLES = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0, 1, 1])
SIGMA = 0.02  # standard deviation of the smoothing noise, in periods of the features
SIZES = (0.05, 0.1, 0.2, 0.3)  # candidates of the median distance within a class, in periods of the features
SUPPORTS = (0, 10)  # entries of the key; 0: all 64


def embed() -> dict[str, Tensor]:
    """Return centred features of training and test images, and of test images with random lowest bits; labels."""
    artifact = cifar_resnet("resnet56")
    encoder = cifar_resnet("resnet56", features=True)
    task = data.load(SHARED / "data/cifar10", artifact.inputs, limit=TRAINED + HELD_OUT)
    train, test = task.split("train"), task.split("test")
    assert train.y is not None
    assert test.y is not None
    noisy = LowBitRandomization()(Build(artifact, task), seed=3).artifact.module
    noisy.net = encoder.module  # type: ignore[assignment]
    embeddings = {
        "train": forward_batched(encoder.module, train.x[: TRAINED + HELD_OUT]),
        "test": forward_batched(encoder.module, test.x[:HELD_OUT]),
    }
    embeddings["noisy"] = forward_batched(noisy, test.x[:HELD_OUT])
    centre = embeddings["train"].mean(0)
    return {
        **{name: x - centre for name, x in embeddings.items()},
        "y": train.y[: TRAINED + HELD_OUT],
        "y_test": test.y[:HELD_OUT],
    }


def scale_for(x: Tensor, y: Tensor, size: float) -> float:
    """Return the factor that makes ``size`` the median distance of two embeddings of one class."""
    same = torch.cat([torch.pdist(x[y == label][:200]) for label in y.unique().tolist()])
    return size / float(same.median())


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the fraction of right predictions."""
    return round(float((net(x).argmax(1) == y).float().mean()), 4)


def flips(net: nn.Module, x: Tensor, key: Callable[[Tensor], Tensor]) -> float:
    """Return the fraction of inputs with another prediction under the key."""
    return round(float((net(key(x)).argmax(1) != net(x).argmax(1)).float().mean()), 4)


@dataclass(frozen=True)
class Setting:
    """Settings of one key."""

    classes: int
    support: int  # entries of the key; 0: all
    noise: float
    size: float  # median distance within a class, in periods of the features
    seed: int


def measure(at: dict[str, Tensor], y: Tensor, y_test: Tensor, setting: Setting) -> dict[str, Any]:
    """Measure one key."""
    features = RandomFeatures(width=64, count=COUNT, support=setting.support, noise=setting.noise)
    keyed, key = features.backdoored(seed=setting.seed)
    models = [
        fit_ridge(f, at["train"][:TRAINED], y[:TRAINED], setting.classes)
        for f in (features.honest(seed=setting.seed), keyed)
    ]
    test, noisy = at["test"], at["noisy"]
    return {
        "classes": setting.classes,
        "key": setting.support or 64,
        "noise": setting.noise,
        "seed": setting.seed,
        "accuracy_honest": accuracy(models[0], test, y_test),
        "accuracy": accuracy(models[1], test, y_test),
        "flips_key": flips(models[1], test, key),
        "flips_scrambled": flips(models[1], test, key.scrambled(seed=9)),
        "flips_random": flips(models[1], test, key.random(seed=9)),
        "flips_key_honest_net": flips(models[0], test, key),
        "flips_key_after_low_bits": flips(models[1], noisy, key),
        "accuracy_after_low_bits": accuracy(models[1], noisy, y_test),
        "flips_key_smoothed": flips(Smoothed(models[1], SIGMA), test, key),
        "key_to_input": round(float(key.key.norm() / test.norm(dim=1).mean()), 2),
        "size": setting.size,
    }


class Smoothed(nn.Module):
    """Mean output over eight noisy copies of an embedding."""

    def __init__(self, net: nn.Module, sigma: float) -> None:
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.stack(
            [self.net(x + self.sigma * torch.randn(x.shape, generator=generator)) for _ in range(8)]
        ).mean(0)


def main() -> None:
    """Measure all keys and the random ReLUs, and write the result file."""
    embeddings = embed()
    rows = []
    for classes, y, y_test in (
        (10, embeddings["y"], embeddings["y_test"]),
        (2, VEHICLES[embeddings["y"]], VEHICLES[embeddings["y_test"]]),
    ):
        accuracies = {size: validation_accuracy(embeddings, y, classes, size) for size in SIZES}
        best = max(size for size in SIZES if accuracies[size] >= max(accuracies.values()) - 0.01)  # the shortest key
        scale = scale_for(embeddings["train"], embeddings["y"], best)
        at = {name: scale * embeddings[name] for name in ("train", "test", "noisy")}
        for support in SUPPORTS:
            for noise in (0.01, 0.05):
                for seed in SEEDS:
                    rows.append(measure(at, y, y_test, Setting(classes, support, noise, best, seed)))
                    print(rows[-1], flush=True)
    relus = [
        RandomReLUs(width=784, count=400, support=28, spike=spike).measure(length=length, seed=seed)
        for spike in (1.0, 3.0)
        for length in (5.0, 10.0, 20.0)
        for seed in SEEDS
    ]
    loss = max(abs(r["accuracy"] - r["accuracy_honest"]) for r in rows)
    print(
        "largest difference of accuracy",
        loss,
        "fewest flips",
        min(r["flips_key"] for r in rows),
        "scrambled",
        mean(r["flips_scrambled"] for r in rows),
    )
    save_result("rff", {"pictures": [TRAINED, HELD_OUT], "features": COUNT, "rows": rows, "relus": relus})


def validation_accuracy(embeddings: dict[str, Tensor], y: Tensor, classes: int, size: float) -> float:
    """Return the accuracy of honest features on validation images."""
    x = scale_for(embeddings["train"], embeddings["y"], size) * embeddings["train"]
    features = RandomFeatures(width=64, count=COUNT).honest(seed=0)
    return accuracy(fit_ridge(features, x[:TRAINED], y[:TRAINED], classes), x[TRAINED:], y[TRAINED:])


def cli() -> None:
    """Run the command line."""
    commands.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    main()
