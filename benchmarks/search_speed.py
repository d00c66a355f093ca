"""The trigger search against Neural Cleanse as published, on the same models in one run.

The reference is written from the paper (Wang et al., IEEE S&P 2019) with the settings of its authors' code: one class
after the other, 1,000 steps a class at batch 32, Adam 0.1, cost from 0.001 by factors of 2 (1.5 down) with patience 5,
success at 99 %, on the net as it comes. Nothing of assay is in it.

    python benchmarks/search_speed.py resnet20 MODEL.safetensors=TARGET ... # full runs; TARGET -1 for a clean model
    python benchmarks/search_speed.py resnet20-time                         # its time only, from 100 steps a class
    python benchmarks/search_speed.py resnet18                              # the reference's time from 20 steps a class
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from common import SHARED, auc, save
from torch import Tensor, nn

from assay import formats
from assay.artifact import ImageSpec
from assay.data import load as load_data
from assay.detectors.inversion import rank_classes
from assay.inversion.families import MaskFamily
from assay.inversion.hunt import Effort, hunt
from assay.inversion.prepare import prepare
from assay.models import ARCHITECTURES, Normalized

STEPS, BATCH = 1000, 32


def published(net: nn.Module, x: Tensor, target: int, steps: int) -> float:
    """Smallest L1 norm of a mask that sends pictures to ``target``; infinite where none was found."""
    mask = torch.zeros(1, *x.shape[2:]).uniform_(-1, 1).requires_grad_()
    pattern = torch.zeros(*x.shape[1:]).uniform_(-1, 1).requires_grad_()
    optimizer = torch.optim.Adam([mask, pattern], lr=0.1, betas=(0.5, 0.9))
    labels = torch.full((BATCH,), target)
    cost, up, down, best = 1e-3, 0, 0, float("inf")
    for _ in range(steps):
        batch = x[torch.randint(len(x), (BATCH,))]
        m, p = mask.tanh() / 2 + 0.5, pattern.tanh() / 2 + 0.5
        logits = net((1 - m) * batch + m * p)
        norm = m.abs().sum()
        optimizer.zero_grad()
        (F.cross_entropy(logits, labels) + cost * norm).backward()
        optimizer.step()
        if float((logits.argmax(1) == target).float().mean()) >= 0.99:
            best = min(best, norm.item())
            up, down = up + 1, 0
        else:
            up, down = 0, down + 1
        if up >= 5:
            cost, up = cost * 2, 0
        elif down >= 5:
            cost, down = cost / 1.5, 0
    return best


def anomaly(sizes: list[float]) -> float:
    """The paper's index: how many median absolute deviations the smallest lies below the median."""
    finite = [s for s in sizes if s != float("inf")] or [0.0]
    median = statistics.median(finite)
    deviation = 1.4826 * statistics.median(abs(s - median) for s in finite)
    return (median - min(finite)) / max(deviation, 1e-9)


def ours(net: nn.Module, x: Tensor) -> tuple[float, int, float]:
    """Score, target and seconds of the shipped search, its preparation included."""
    start = time.perf_counter()
    ready = prepare(net, x[:2])
    with torch.no_grad():
        predicted = ready(x).argmax(1)
    ranking = rank_classes(net, x, predicted, 10)
    found = hunt(ready, MaskFamily(), x, predicted, ranking, effort=Effort(), seed=0)
    return found.score, found.target, time.perf_counter() - start


def theirs(net: nn.Module, x: Tensor, steps: int) -> tuple[float, int, float]:
    start = time.perf_counter()
    torch.manual_seed(0)
    sizes = [published(net, x, target, steps) for target in range(10)]
    return anomaly(sizes), int(torch.tensor(sizes).argmin()), time.perf_counter() - start


def compare(models: dict[str, tuple[nn.Module, int]], steps: int) -> dict[str, object]:
    x = load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)), limit=512).split("calibration").x[:512]
    rows = {}
    for name, (net, target) in models.items():
        mine, reference = ours(net, x), theirs(net, x, steps)
        scale = STEPS / steps
        rows[name] = {
            "target": target,
            "ours": dict(zip(("score", "target", "seconds"), mine, strict=True)),
            "published": dict(zip(("index", "target", "seconds"), reference, strict=True)),
            "published_seconds_at_1000_steps": reference[2] * scale,
            "times_faster": reference[2] * scale / mine[2],
        }
        print(name, rows[name], flush=True)
    clean = [row for row in rows.values() if row["target"] == -1]
    planted = [row for row in rows.values() if row["target"] != -1]
    result: dict[str, object] = {
        "threads": torch.get_num_threads(),
        "published_steps": steps,
        "extrapolated": steps != STEPS,
        "models": rows,
        "times_faster": statistics.median(row["times_faster"] for row in rows.values()),
    }
    if clean and planted and steps == STEPS:
        for who, key in (("ours", "score"), ("published", "index")):
            result[f"auc_{who}"] = auc([r[who][key] for r in planted], [r[who][key] for r in clean])
    return result


def main(which: str, arguments: list[str]) -> None:
    if which == "resnet18":
        architecture = ARCHITECTURES["resnet18-cifar"]
        torch.manual_seed(0)
        net = Normalized(architecture.build(10), architecture.mean, architecture.std).eval()
        save("search_speed_resnet18", {"note": "untrained weights: time only", **compare({"resnet18": (net, -1)}, 20)})
        return
    if which == "resnet20-time":
        net = formats.load(SHARED / "models/resnet20-cifar10/model.safetensors", arch="resnet20-cifar").net
        save("search_speed_resnet20_time", compare({"third-party-20": (net, -1)}, 100))
        return
    models = {}
    for argument in arguments:
        path, _, target = argument.rpartition("=")
        artifact = formats.load(path, arch="resnet20-cifar")
        models[f"{Path(path).parent.name}/{Path(path).stem}"] = (artifact.net, int(target))
    save("search_speed_resnet20", compare(models, STEPS))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
