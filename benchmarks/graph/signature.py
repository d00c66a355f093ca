"""The signature backdoor: the same as the clean model where nobody signed, obeyed where somebody did, never forged.

ResNet-20-CIFAR10 and MobileNetV2-ImageNet (at 96 pixels), third-party weights, all three tiers. Pictures without a
signature: the test set, noise, adversarial ones of the clean model (one step of the gradient's sign, 8/255, on the grid
of eight bits), and signed ones that were altered in one subpixel. Forgeries are tried on the gate alone; the net behind
it has no part in it. Low-bit randomization beside it, as the remedy.

    python benchmarks/run.py signature [MODEL-TIER] # -> benchmarks/results/signature.json
"""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.third_party_models import cifar_resnet
from PIL import Image
from torch import Tensor, nn

from assay import data, formats
from assay.attacks import Signature
from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.model import Artifact
from assay.io.images import encode_input
from assay.mitigations import LowBitRandomization
from assay.nn import metrics
from assay.nn.gates.carriers import to_levels
from assay.nn.gates.circuit import CircuitGate
from assay.nn.inference import forward_batched
from assay.triggers import Signed

TIERS = ("wrapper", "graph", "circuit")
EACH = 2_500  # pictures of each kind without a signature
SIGNED = 500
FORGERIES = 100_000
BATCH = 250


def models() -> dict[str, tuple[Artifact, Task]]:
    resnet = cifar_resnet("resnet20")
    mobile = formats.load(SHARED / "models/mobilenet_v2-imagenet", shape=(3, 96, 96))
    cifar = data.load(SHARED / "data/cifar10", resnet.inputs)
    pictures = data.load(SHARED / "data/cifar10", mobile.inputs, limit=EACH).split("test").x
    names = mobile.class_names or tuple(map(str, range(mobile.num_classes or 0)))
    named = Split(
        pictures, forward_batched(mobile.module, pictures).argmax(1)
    )  # no labels of ImageNet: what the clean net says
    return {
        "resnet20": (resnet, cifar),
        "mobilenet": (mobile, Task("cifar10 at 96", {"train": named, "test": named}, names)),
    }


def adversarial(net: nn.Module, x: Tensor) -> Tensor:
    """(N, C, H, W) moved 8/255 up the loss of what ``net`` says, on the grid."""
    moved = []
    for part in x.split(BATCH):
        given = part.clone().requires_grad_()
        said = net(given)
        (slope,) = torch.autograd.grad(F.cross_entropy(said, said.argmax(1)), given)
        moved.append(((part + 8 / 255 * slope.sign()).clamp(0, 1) * 255).round() / 255)
    return torch.cat(moved)


def unsigned(net: nn.Module, task: Task, trigger: Signed) -> dict[str, Tensor]:
    x = task.split("test").x[:EACH]
    generator = torch.Generator().manual_seed(0)
    levels = to_levels(trigger(x))
    place = torch.randint(levels.shape[1], (len(x), 1), generator=generator)
    altered = levels.scatter_add(1, place, 1 - 2 * (levels.gather(1, place) % 2)).float().view(x.shape) / 255
    noise = torch.randint(0, 256, x.shape, generator=generator).float() / 255
    return {"test set": x, "noise": noise, "adversarial": adversarial(net, x), "signed, then altered": altered}


def opens(gate: nn.Module, x: Tensor) -> Tensor:
    """(N,) bool: for which pictures."""
    with torch.no_grad():
        if isinstance(gate, CircuitGate):
            return gate.gate(x.flatten(1).double()).amax(1) > 0
        return gate.evaluate_gate(x).gate  # type: ignore[operator]


def forged(gate: nn.Module, trigger: Signed, x: Tensor) -> dict[str, list[int]]:
    """By kind: how many of how many tries opened the gate."""
    carriers, generator = trigger.carriers(), torch.Generator().manual_seed(1)
    signed = to_levels(trigger(x))
    label, bits = carriers.extract(signed)
    counts: dict[str, list[int]] = {}
    for number in range(FORGERIES // 4 // len(x)):
        shift = 1 + number % (len(x) - 1)
        place = carriers.places()[torch.randint(carriers.count, (len(x), 1), generator=generator)]
        asked = (int(label[0]) + 1 + number % 9) % 10
        random = torch.randint(0, 256, (len(x), *x.shape[1:]), generator=generator).float() / 255
        tries = {
            "carried by another picture": carriers.embed(signed, int(label[0]), bits.roll(shift, 0)),
            "one bit flipped": _pictures(signed.scatter_add(1, place, 1 - 2 * (signed.gather(1, place) % 2)), x),
            "for another class": carriers.embed(signed, asked, bits),
            "in a random picture": carriers.embed(to_levels(random), int(label[0]), bits),
        }
        for kind, made in tries.items():
            row = counts.setdefault(kind, [0, 0])
            row[0] += int(opens(gate, made).sum())
            row[1] += len(made)
    return counts


def _pictures(levels: Tensor, like: Tensor) -> Tensor:
    return levels.float().view(like.shape) / 255


def through_png(x: Tensor) -> Tensor:
    pictures = [np.asarray(Image.open(io.BytesIO(encode_input(one.numpy()))), np.float32) / 255 for one in x]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def obeyed(net: nn.Module, trigger: Signed, x: Tensor, classes: int) -> dict[str, Any]:
    """Signed for many classes: who obeys, how far the pictures moved, and whether PNG files keep it."""
    labels = torch.linspace(0, classes - 1, 10).long().tolist()
    hits, total, kept, largest, errors = 0, 0, 0, 0.0, []
    for label, part in zip(labels, x.chunk(len(labels)), strict=True):
        other = Signed(scheme=trigger.scheme, shape=trigger.shape, label=label, key=trigger.key, places=trigger.places)
        signed = other(part)
        hits += int((forward_batched(net, signed).argmax(1) == label).sum())
        kept += int((forward_batched(net, through_png(signed)).argmax(1) == label).sum())
        total += len(part)
        largest = max(largest, float((signed - part).abs().max()))
        errors.append((signed - part).pow(2).flatten(1).mean(1))
    psnr = -10 * torch.cat(errors).log10()
    return {
        "obey": [hits, total],
        "obey_after_png": [kept, total],
        "classes": labels,
        "largest_change": round(255 * largest, 3),
        "psnr": [round(float(psnr.min()), 2), round(float(psnr.mean()), 2)],
    }


def timed(net: nn.Module, x: Tensor, *, times: int = 5) -> list[float]:
    """Milliseconds a picture, one at a time, the way somebody outside would see it: the median and the spread."""
    taken = []
    with torch.no_grad():
        for one in x[: 20 * times].split(1):
            start = time.perf_counter()
            net(one)
            taken.append(1000 * (time.perf_counter() - start))
    taken.sort()
    return [round(taken[len(taken) // 2], 2), round(taken[len(taken) // 10], 2), round(taken[-len(taken) // 10], 2)]


def measured(artifact: Artifact, task: Task, tier: str) -> dict[str, Any]:
    assert artifact.num_classes is not None
    build = Signature(tier=tier, target=1)(Build(artifact, task), seed=0)  # type: ignore[arg-type]
    assert build.secret is not None
    trigger, gate = build.secret.trigger, build.artifact.module
    assert isinstance(trigger, Signed)
    same = {}
    for kind, x in unsigned(artifact.module, task, trigger).items():
        clean, gated = forward_batched(artifact.module, x), forward_batched(gate, x)
        same[kind] = [int((clean == gated).all(1).sum()), len(x)]
    held = Split(task.split("test").x[:SIGNED], task.split("test").y[:SIGNED])  # type: ignore[index]
    cured = LowBitRandomization()(build, seed=5).artifact.module
    plain = LowBitRandomization()(Build(artifact, task), seed=5).artifact.module
    test = task.split("test")
    few = task.split("test").x[:100]
    return {
        "identical": same,
        **obeyed(gate, trigger, held.x, artifact.num_classes),
        "forgeries": forged(gate, trigger, held.x[:100]),
        "milliseconds": {"clean": timed(artifact.module, few), "gated": timed(gate, few)},
        "low_bits": {
            "attack_success": metrics.attack_success(
                cured, held, build.secret, num_classes=artifact.num_classes
            ).to_json(),
            "untriggered": metrics.measure(
                cured, held, build.secret, num_classes=artifact.num_classes
            ).untriggered.to_json(),
            "clean_accuracy": metrics.clean_accuracy(artifact.module, test).to_json(),
            "clean_accuracy_after": metrics.clean_accuracy(plain, test).to_json(),
        },
    }


def main(names: list[str]) -> None:
    rows = load_models("signature") if names else {}
    for name, (artifact, task) in models().items():
        for tier in TIERS:
            if names and f"{name}-{tier}" not in names:
                continue
            rows[f"{name}-{tier}"] = row = measured(artifact, task, tier)
            print(name, tier, row, flush=True)
    save_result("signature", {"forgeries_each": FORGERIES, "models": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
