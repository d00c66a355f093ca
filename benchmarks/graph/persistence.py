"""What removes which backdoor: ordinary transformations of a model, against backdoors in its computation and weights.

ResNet-20-CIFAR10, third-party weights. Built in: the signature in three tiers, the checksum, three architectural
backdoors; in the weights, beside them: BadNets, and BadNets behind a majority of three copies, which no gradient
reaches. Each is fine-tuned, pruned, quantized, exported and distilled; the same is done to the clean net, on which the
trigger is the control. Random Fourier features on the 64 features of ResNet-56 beside them, where the trigger is a key.

    python benchmarks/run.py persistence [BACKDOOR ...]     # -> benchmarks/results/persistence.json
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.third_party_models import cifar_resnet
from random_features.rff import COUNT, TRAINED, accuracy, embedded, flips, scale_for
from torch import Tensor, nn

from assay import data
from assay.attacks import Architectural, ArchitecturalLogic, BadNets, Checksum, ShadowLogic, Signature
from assay.attacks.base import Attack
from assay.attacks.random_features.rff_clwe import RandomFeatures, fit_ridge
from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.mitigations import LowBitRandomization, Smoothing
from assay.nn import metrics
from assay.nn.random_features import RandomFourier
from assay.stages.base import Stage
from assay.stages.distil import Distil
from assay.stages.export import ExportInt8, ExportOnnx
from assay.stages.persist import Persist
from assay.stages.prune import PruneFilters, PruneMagnitude
from assay.stages.quantize import QuantizeInt8
from assay.stages.train import FineTune, FitOptions, Recipe, fit

SEED, PICTURES, JUDGED = 0, 3_000, 1_000
POISONED = Recipe(epochs=3, lr=0.02, batch_size=64, mirror=True)
TAUGHT = Recipe(epochs=6, lr=0.1, batch_size=64, mirror=True)
BACKDOORS: dict[str, Attack] = {
    "signature, wrapper": Signature(tier="wrapper", target=1),
    "signature, graph": Signature(tier="graph", target=1),
    "signature, circuit": Signature(tier="circuit", target=1),
    "checksum": Checksum(target=1),
    "architectural": Architectural(strength=1.0),
    "architectural-logic": ArchitecturalLogic(target=1),
    "shadow-logic": ShadowLogic(target=1),
    "badnets": BadNets(target=1, ratio=0.05, recipe=POISONED),
    "badnets, majority of three": BadNets(target=1, ratio=0.05, recipe=POISONED),
}


def tuned(optimizer: str, lr: float, decay: float) -> FineTune:
    return FineTune(
        recipe=Recipe(
            epochs=1,
            lr=lr,
            batch_size=64,
            optimizer=optimizer,  # type: ignore[arg-type]
            weight_decay=decay,
            mirror=True,
            freeze_batchnorm=True,
        )
    )


STAGES: dict[str, Stage | None] = {
    "as planted": None,
    "SGD": tuned("sgd", 0.01, 0.0),
    "SGD, decay": tuned("sgd", 0.01, 0.01),
    "Adam": tuned("adam", 0.001, 0.0),
    "Adam, decay": tuned("adam", 0.001, 0.1),
    "weights pruned 0.5": PruneMagnitude(rate=0.5),
    "filters pruned 0.2": PruneFilters(rate=0.2, recalibrate=True),
    "int8 in torch": QuantizeInt8(),
    "ONNX file": ExportOnnx(),
    "int8 ONNX file": ExportInt8(),
    "distilled": Distil(arch="resnet20-cifar", recipe=TAUGHT),
    "low bits randomized": LowBitRandomization(),
    "smoothed": Smoothing(),
}


def measured(build: Build, twin: Build, stage: Stage | None) -> dict[str, Any]:
    """Accuracy, ASR and its control after ``stage``, which made ``twin`` of the clean net; why not, where it fails."""
    assert build.secret is not None
    test = build.task.split("test")
    assert test.y is not None
    held = Split(test.x[:JUDGED], test.y[:JUDGED])
    try:
        after = stage(build, seed=SEED) if stage else build
    except UnusableInput as why:
        return {"not possible": str(why)}
    found = metrics.measure(after.artifact.module, held, build.secret, num_classes=10)
    return {
        "clean_accuracy": found.clean_accuracy.to_json(),
        "attack_success": found.attack_success.to_json(),
        "control": metrics.attack_success(twin.artifact.module, held, build.secret, num_classes=10).to_json(),
        "accuracy_of_clean": metrics.clean_accuracy(twin.artifact.module, held).to_json(),
    }


def of_pictures(names: list[str]) -> dict[str, dict]:
    artifact = cifar_resnet("resnet20")
    clean = Build(artifact, data.load(SHARED / "data/cifar10", artifact.inputs, limit=PICTURES))
    rows = load_models("persistence")
    twins = {what: stage(clean, seed=SEED) if stage else clean for what, stage in STAGES.items()}
    for name in names:
        build = BACKDOORS[name](clean, seed=SEED)
        if name.endswith("majority of three"):
            build = Persist()(build, seed=SEED)
        rows[name] = {}
        for what, stage in STAGES.items():
            rows[name][what] = row = measured(build, twins[what], stage)
            rates = {key: value["value"] for key, value in row.items() if isinstance(value, dict)}
            print(name, what, rates or row, flush=True)
    return rows


class Features(nn.Module):
    """Random features whose directions can be trained."""

    def __init__(self, features: RandomFourier) -> None:
        super().__init__()
        self.directions, self.phases = nn.Parameter(features.directions.clone()), features.phases

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(2 * torch.pi * (x @ self.directions.T + self.phases))


def of_features() -> dict[str, dict]:
    """Flips by the key, of ten classes; the control is the honest twin, after the same."""
    found = embedded()
    at = {name: scale_for(found["train"], found["y"], 0.1) * found[name] for name in ("train", "test")}
    x, y = at["train"][:TRAINED], found["y"][:TRAINED]
    features = RandomFeatures(width=64, count=COUNT)
    keyed, key = features.backdoored(seed=SEED)
    nets = {"keyed": fit_ridge(keyed, x, y, 10), "honest": fit_ridge(features.honest(seed=SEED), x, y, 10)}
    rows = {}
    for what, change in CHANGES.items():
        after = {which: change(net, x, y) for which, net in nets.items()}
        rows[what] = {
            "clean_accuracy": accuracy(after["keyed"], at["test"], found["y_test"]),
            "flips_key": flips(after["keyed"], at["test"], key),
            "flips_scrambled": flips(after["keyed"], at["test"], key.scrambled(seed=9)),
            "flips_key_honest_net": flips(after["honest"], at["test"], key),
        }
        print("random features", what, rows[what], flush=True)
    return rows


def trained(net: nn.Module, x: Tensor, y: Tensor, *, optimizer: str, directions: bool, lr: float) -> nn.Module:
    net = copy.deepcopy(net)
    if directions:
        net[0] = Features(net[0])  # type: ignore[operator,index]
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    recipe = Recipe(epochs=5, lr=lr, batch_size=64, optimizer=optimizer, weight_decay=0.0, augment=False)  # type: ignore[arg-type]
    fit(net, Split(x, y), recipe, seed=SEED, options=FitOptions(full_precision=True))
    return net.eval().requires_grad_(False)


def in_int8(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Weights and directions rounded to 8 bits, one step a row."""
    net = copy.deepcopy(net)
    for weight in (net[0].directions, net[1].weight.data):  # type: ignore[index]
        step = weight.abs().amax(1, keepdim=True) / 127
        weight.copy_((weight / step).round() * step)
    return net


def taught(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Other random features, honest ones, learn the answers."""
    with torch.no_grad():
        said = net(x).argmax(1)
    return fit_ridge(RandomFeatures(width=64, count=COUNT).honest(seed=SEED + 1), x, said, 10)


def pruned(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    net = copy.deepcopy(net)
    weight = net[1].weight.data  # type: ignore[index]
    weight[weight.abs() < weight.abs().median()] = 0
    return net


Change = Callable[[nn.Module, Tensor, Tensor], nn.Module]
CHANGES: dict[str, Change] = {
    "as planted": lambda net, x, y: net,
    "SGD, last layer": lambda net, x, y: trained(net, x, y, optimizer="sgd", directions=False, lr=0.01),
    "Adam, last layer": lambda net, x, y: trained(net, x, y, optimizer="adam", directions=False, lr=0.001),
    "SGD, directions too": lambda net, x, y: trained(net, x, y, optimizer="sgd", directions=True, lr=0.01),
    "Adam, directions too": lambda net, x, y: trained(net, x, y, optimizer="adam", directions=True, lr=0.001),
    "last layer pruned 0.5": pruned,
    "int8": in_int8,
    "distilled": taught,
}


def main(names: list[str]) -> None:
    rows = of_pictures(names or list(BACKDOORS))
    save_result("persistence", {"pictures": [PICTURES, JUDGED], "models": rows, "features": of_features()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
