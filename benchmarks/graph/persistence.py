"""Survival of backdoors in the computation and in the weights under ordinary transformations of a model.

ResNet-20-CIFAR10, third-party weights. In the computation: the signature in three tiers, the checksum, and three
architectural backdoors. In the weights: BadNets, and BadNets behind a majority of three copies, which blocks the
gradient. Each is fine-tuned, pruned, quantized, exported and distilled. The control is the clean model after the same
transformation, under the same trigger. Also random Fourier features with a key, on the 64 features of ResNet-56.

    python benchmarks/run.py persistence [BACKDOOR ...]     # -> benchmarks/results/persistence.json
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from lib import commands
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.third_party_models import cifar_resnet
from random_features.rff import COUNT, TRAINED, accuracy, embed, flips, scale_for
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

SEED = 0
TRAIN_IMAGES, TEST_IMAGES = 3_000, 1_000
POISON = Recipe(epochs=3, lr=0.02, batch_size=64, mirror=True)
DISTILL = Recipe(epochs=6, lr=0.1, batch_size=64, mirror=True)
BACKDOORS: dict[str, Attack] = {
    "signature, wrapper": Signature(tier="wrapper", target=1),
    "signature, graph": Signature(tier="graph", target=1),
    "signature, circuit": Signature(tier="circuit", target=1),
    "checksum": Checksum(target=1),
    "architectural": Architectural(strength=1.0),
    "architectural-logic": ArchitecturalLogic(target=1),
    "shadow-logic": ShadowLogic(target=1),
    "badnets": BadNets(target=1, ratio=0.05, recipe=POISON),
    "badnets, majority of three": BadNets(target=1, ratio=0.05, recipe=POISON),
}


def fine_tune(optimizer: str, lr: float, decay: float) -> FineTune:
    """Return one epoch of fine-tuning."""
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
    "SGD": fine_tune("sgd", 0.01, 0.0),
    "SGD, decay": fine_tune("sgd", 0.01, 0.01),
    "Adam": fine_tune("adam", 0.001, 0.0),
    "Adam, decay": fine_tune("adam", 0.001, 0.1),
    "weights pruned 0.5": PruneMagnitude(rate=0.5),
    "filters pruned 0.2": PruneFilters(rate=0.2, recalibrate=True),
    "int8 in torch": QuantizeInt8(),
    "ONNX file": ExportOnnx(),
    "int8 ONNX file": ExportInt8(),
    "distilled": Distil(arch="resnet20-cifar", recipe=DISTILL),
    "low bits randomized": LowBitRandomization(),
    "smoothed": Smoothing(),
}


def measure(build: Build, control: Build, stage: Stage | None) -> dict[str, Any]:
    """Return accuracy, ASR and their controls after ``stage``; the error message if the stage is not possible."""
    assert build.secret is not None
    test = build.task.split("test")
    assert test.y is not None
    held_out = Split(test.x[:TEST_IMAGES], test.y[:TEST_IMAGES])
    try:
        after = stage(build, seed=SEED) if stage else build
    except UnusableInput as error:
        return {"not possible": str(error)}
    rates = metrics.measure(after.artifact.module, held_out, build.secret, num_classes=10)
    return {
        "clean_accuracy": rates.clean_accuracy.to_json(),
        "attack_success": rates.attack_success.to_json(),
        "control": metrics.attack_success(control.artifact.module, held_out, build.secret, num_classes=10).to_json(),
        "accuracy_of_clean": metrics.clean_accuracy(control.artifact.module, held_out).to_json(),
    }


def measure_backdoors(names: list[str]) -> dict[str, dict]:
    """Measure the named backdoors after all stages. Rows of other backdoors stay."""
    artifact = cifar_resnet("resnet20")
    clean = Build(artifact, data.load(SHARED / "data/cifar10", artifact.inputs, limit=TRAIN_IMAGES))
    rows = load_models("persistence")
    controls = {change: stage(clean, seed=SEED) if stage else clean for change, stage in STAGES.items()}
    for name in names:
        build = BACKDOORS[name](clean, seed=SEED)
        if name.endswith("majority of three"):
            build = Persist()(build, seed=SEED)
        rows[name] = {}
        for change, stage in STAGES.items():
            rows[name][change] = row = measure(build, controls[change], stage)
            rates = {key: value["value"] for key, value in row.items() if isinstance(value, dict)}
            print(name, change, rates or row, flush=True)
    return rows


class TrainableFeatures(nn.Module):
    """Random features with trainable directions."""

    def __init__(self, features: RandomFourier) -> None:
        super().__init__()
        self.directions, self.phases = nn.Parameter(features.directions.clone()), features.phases

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(2 * torch.pi * (x @ self.directions.T + self.phases))


def measure_random_features() -> dict[str, dict]:
    """Return flips by the key, of ten classes; the control is the honest model after the same change."""
    embeddings = embed()
    at = {name: scale_for(embeddings["train"], embeddings["y"], 0.1) * embeddings[name] for name in ("train", "test")}
    x, y = at["train"][:TRAINED], embeddings["y"][:TRAINED]
    features = RandomFeatures(width=64, count=COUNT)
    keyed, key = features.backdoored(seed=SEED)
    models = {"keyed": fit_ridge(keyed, x, y, 10), "honest": fit_ridge(features.honest(seed=SEED), x, y, 10)}
    rows = {}
    for name, change in CHANGES.items():
        after = {which: change(net, x, y) for which, net in models.items()}
        rows[name] = {
            "clean_accuracy": accuracy(after["keyed"], at["test"], embeddings["y_test"]),
            "flips_key": flips(after["keyed"], at["test"], key),
            "flips_scrambled": flips(after["keyed"], at["test"], key.scrambled(seed=9)),
            "flips_key_honest_net": flips(after["honest"], at["test"], key),
        }
        print("random features", name, rows[name], flush=True)
    return rows


def train(net: nn.Module, x: Tensor, y: Tensor, *, optimizer: str, directions: bool, lr: float) -> nn.Module:
    """Fine-tune a copy of the last layer, or of the directions too."""
    net = copy.deepcopy(net)
    if directions:
        net[0] = TrainableFeatures(net[0])  # type: ignore[operator,index]
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    recipe = Recipe(epochs=5, lr=lr, batch_size=64, optimizer=optimizer, weight_decay=0.0, augment=False)  # type: ignore[arg-type]
    fit(net, Split(x, y), recipe, seed=SEED, options=FitOptions(full_precision=True))
    return net.eval().requires_grad_(False)


def to_int8(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Round weights and directions to 8 bits, with one scale per row."""
    net = copy.deepcopy(net)
    for weight in (net[0].directions, net[1].weight.data):  # type: ignore[index]
        step = weight.abs().amax(1, keepdim=True) / 127
        weight.copy_((weight / step).round() * step)
    return net


def distil(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Fit honest random features to the predictions of ``net``."""
    with torch.no_grad():
        labels = net(x).argmax(1)
    return fit_ridge(RandomFeatures(width=64, count=COUNT).honest(seed=SEED + 1), x, labels, 10)


def prune(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Set the smaller half of the last layer's weights to zero."""
    net = copy.deepcopy(net)
    weight = net[1].weight.data  # type: ignore[index]
    weight[weight.abs() < weight.abs().median()] = 0
    return net


Change = Callable[[nn.Module, Tensor, Tensor], nn.Module]
CHANGES: dict[str, Change] = {
    "as planted": lambda net, x, y: net,
    "SGD, last layer": lambda net, x, y: train(net, x, y, optimizer="sgd", directions=False, lr=0.01),
    "Adam, last layer": lambda net, x, y: train(net, x, y, optimizer="adam", directions=False, lr=0.001),
    "SGD, directions too": lambda net, x, y: train(net, x, y, optimizer="sgd", directions=True, lr=0.01),
    "Adam, directions too": lambda net, x, y: train(net, x, y, optimizer="adam", directions=True, lr=0.001),
    "last layer pruned 0.5": prune,
    "int8": to_int8,
    "distilled": distil,
}


def main(names: list[str]) -> None:
    """Measure all transformations, and write the result file."""
    rows = measure_backdoors(names or list(BACKDOORS))
    save_result(
        "persistence", {"pictures": [TRAIN_IMAGES, TEST_IMAGES], "models": rows, "features": measure_random_features()}
    )


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("names", nargs="*", metavar="BACKDOOR")
    main(command_line.parse_args().names)
