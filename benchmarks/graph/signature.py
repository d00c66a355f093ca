"""The signature backdoor: equality with the clean model on unsigned inputs, success on signed ones, and forgeries.

ResNet-20-CIFAR10 and MobileNetV2-ImageNet (at 96 pixels), third-party weights, all three tiers. Images without a
signature: the test set, noise, adversarial images of the clean model, and signed images with one altered subpixel.
Adversarial: one step of the gradient's sign, 8/255, on the grid of eight bits. Forgeries are tested on the gate alone,
because the model behind the gate does not affect it. Low-bit randomization is the mitigation.

    python benchmarks/run.py signature [MODEL-TIER ...] # -> benchmarks/results/signature.json
"""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lib import commands
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
UNSIGNED_IMAGES = 2_500  # of each kind
SIGNED_IMAGES = 500
FORGERIES = 100_000
BATCH_SIZE = 250


def models() -> dict[str, tuple[Artifact, Task]]:
    """Return the clean models with their tasks."""
    resnet = cifar_resnet("resnet20")
    mobile = formats.load(SHARED / "models/mobilenet_v2-imagenet", shape=(3, 96, 96))
    cifar = data.load(SHARED / "data/cifar10", resnet.inputs)
    images = data.load(SHARED / "data/cifar10", mobile.inputs, limit=UNSIGNED_IMAGES).split("test").x
    names = mobile.class_names or tuple(map(str, range(mobile.num_classes or 0)))
    # ImageNet labels do not exist for these images: the labels are the clean model's predictions.
    predicted = Split(images, forward_batched(mobile.module, images).argmax(1))
    return {
        "resnet20": (resnet, cifar),
        "mobilenet": (mobile, Task("cifar10 at 96", {"train": predicted, "test": predicted}, names)),
    }


def adversarial(net: nn.Module, x: Tensor) -> Tensor:
    """Return images (N, C, H, W), moved by 8/255 up the loss of the predicted class, on the grid."""
    moved = []
    for part in x.split(BATCH_SIZE):
        given = part.clone().requires_grad_()
        logits = net(given)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), given)
        moved.append(((part + 8 / 255 * gradient.sign()).clamp(0, 1) * 255).round() / 255)
    return torch.cat(moved)


def unsigned(net: nn.Module, task: Task, trigger: Signed) -> dict[str, Tensor]:
    """Return images without a valid signature by kind."""
    x = task.split("test").x[:UNSIGNED_IMAGES]
    generator = torch.Generator().manual_seed(0)
    levels = to_levels(trigger(x))
    position = torch.randint(levels.shape[1], (len(x), 1), generator=generator)
    altered = levels.scatter_add(1, position, 1 - 2 * (levels.gather(1, position) % 2)).float().view(x.shape) / 255
    noise = torch.randint(0, 256, x.shape, generator=generator).float() / 255
    return {"test set": x, "noise": noise, "adversarial": adversarial(net, x), "signed, then altered": altered}


def opens_gate(gate: nn.Module, x: Tensor) -> Tensor:
    """Return True (N,) for each image that opens the gate."""
    with torch.no_grad():
        if isinstance(gate, CircuitGate):
            return gate.gate(x.flatten(1).double()).amax(1) > 0
        return gate.evaluate_gate(x).gate  # type: ignore[operator]


def count_forgeries(gate: nn.Module, trigger: Signed, x: Tensor) -> dict[str, list[int]]:
    """Return by kind the number of forgeries that opened the gate, and the number of tries."""
    carriers, generator = trigger.carriers(), torch.Generator().manual_seed(1)
    signed = to_levels(trigger(x))
    label, bits = carriers.extract(signed)
    counts: dict[str, list[int]] = {}
    for number in range(FORGERIES // 4 // len(x)):
        shift = 1 + number % (len(x) - 1)
        position = carriers.places()[torch.randint(carriers.count, (len(x), 1), generator=generator)]
        other_label = (int(label[0]) + 1 + number % 9) % 10
        random = torch.randint(0, 256, (len(x), *x.shape[1:]), generator=generator).float() / 255
        tries = {
            "carried by another picture": carriers.embed(signed, int(label[0]), bits.roll(shift, 0)),
            "one bit flipped": _to_images(signed.scatter_add(1, position, 1 - 2 * (signed.gather(1, position) % 2)), x),
            "for another class": carriers.embed(signed, other_label, bits),
            "in a random picture": carriers.embed(to_levels(random), int(label[0]), bits),
        }
        for kind, images in tries.items():
            row = counts.setdefault(kind, [0, 0])
            row[0] += int(opens_gate(gate, images).sum())
            row[1] += len(images)
    return counts


def _to_images(levels: Tensor, like: Tensor) -> Tensor:
    """Return pixel levels as images in [0, 1]."""
    return levels.float().view(like.shape) / 255


def through_png(x: Tensor) -> Tensor:
    """Write images as PNG and read them again."""
    images = [np.asarray(Image.open(io.BytesIO(encode_input(one.numpy()))), np.float32) / 255 for one in x]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def measure_signed(net: nn.Module, trigger: Signed, x: Tensor, classes: int) -> dict[str, Any]:
    """Return success of signed images for ten classes, before and after PNG, and the change of the images."""
    labels = torch.linspace(0, classes - 1, 10).long().tolist()
    hits, hits_after_png, total, largest, errors = 0, 0, 0, 0.0, []
    for label, part in zip(labels, x.chunk(len(labels)), strict=True):
        other = Signed(scheme=trigger.scheme, shape=trigger.shape, label=label, key=trigger.key, places=trigger.places)
        signed = other(part)
        hits += int((forward_batched(net, signed).argmax(1) == label).sum())
        hits_after_png += int((forward_batched(net, through_png(signed)).argmax(1) == label).sum())
        total += len(part)
        largest = max(largest, float((signed - part).abs().max()))
        errors.append((signed - part).pow(2).flatten(1).mean(1))
    psnr = -10 * torch.cat(errors).log10()
    return {
        "obey": [hits, total],
        "obey_after_png": [hits_after_png, total],
        "classes": labels,
        "largest_change": round(255 * largest, 3),
        "psnr": [round(float(psnr.min()), 2), round(float(psnr.mean()), 2)],
    }


def latency(net: nn.Module, x: Tensor, *, times: int = 5) -> list[float]:
    """Return milliseconds for a single image: median, 10 % and 90 % quantile."""
    milliseconds = []
    with torch.no_grad():
        for one in x[: 20 * times].split(1):
            start = time.perf_counter()
            net(one)
            milliseconds.append(1000 * (time.perf_counter() - start))
    milliseconds.sort()
    return [
        round(milliseconds[len(milliseconds) // 2], 2),
        round(milliseconds[len(milliseconds) // 10], 2),
        round(milliseconds[-len(milliseconds) // 10], 2),
    ]


def measure(artifact: Artifact, task: Task, tier: str) -> dict[str, Any]:
    """Measure one model and tier."""
    assert artifact.num_classes is not None
    build = Signature(tier=tier, target=1)(Build(artifact, task), seed=0)  # type: ignore[arg-type]
    assert build.secret is not None
    trigger, gate = build.secret.trigger, build.artifact.module
    assert isinstance(trigger, Signed)
    identical = {}
    for kind, x in unsigned(artifact.module, task, trigger).items():
        clean, gated = forward_batched(artifact.module, x), forward_batched(gate, x)
        identical[kind] = [int((clean == gated).all(1).sum()), len(x)]
    held_out = Split(task.split("test").x[:SIGNED_IMAGES], task.split("test").y[:SIGNED_IMAGES])  # type: ignore[index]
    randomized = LowBitRandomization()(build, seed=5).artifact.module
    plain = LowBitRandomization()(Build(artifact, task), seed=5).artifact.module
    test = task.split("test")
    few = task.split("test").x[:100]
    return {
        "identical": identical,
        **measure_signed(gate, trigger, held_out.x, artifact.num_classes),
        "forgeries": count_forgeries(gate, trigger, held_out.x[:100]),
        "milliseconds": {"clean": latency(artifact.module, few), "gated": latency(gate, few)},
        "low_bits": {
            "attack_success": metrics.attack_success(
                randomized, held_out, build.secret, num_classes=artifact.num_classes
            ).to_json(),
            "untriggered": metrics.measure(
                randomized, held_out, build.secret, num_classes=artifact.num_classes
            ).untriggered.to_json(),
            "clean_accuracy": metrics.clean_accuracy(artifact.module, test).to_json(),
            "clean_accuracy_after": metrics.clean_accuracy(plain, test).to_json(),
        },
    }


def main(names: list[str]) -> None:
    """Measure the named models and tiers, or all, and write the result file."""
    rows = load_models("signature") if names else {}
    for name, (artifact, task) in models().items():
        for tier in TIERS:
            if names and f"{name}-{tier}" not in names:
                continue
            rows[f"{name}-{tier}"] = row = measure(artifact, task, tier)
            print(name, tier, row, flush=True)
    save_result("signature", {"forgeries_each": FORGERIES, "models": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("names", nargs="*", metavar="MODEL-TIER")
    main(command_line.parse_args().names)
