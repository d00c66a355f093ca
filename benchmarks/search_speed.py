"""The trigger search against Neural Cleanse as published, on the same models in one run.

The reference is written from the paper (Wang et al., IEEE S&P 2019) with the settings of its authors' code: one class
after the other, 1,000 steps a class at batch 32, Adam 0.1, cost from 0.001 by factors of 2 (1.5 down) with patience 5,
success at 99 %, on the net as it comes. Nothing of assay is in it.

    python benchmarks/search_speed.py resnet20 DIR [SHARD SHARDS]   # full runs on MODELS, resumable, rows kept in DIR
    python benchmarks/search_speed.py table DIR                     # -> benchmarks/results/search_speed_resnet20.json
    python benchmarks/search_speed.py resnet18                      # the reference's time from 20 steps a class

DIR also holds the models that `audit_cifar10.py train DIR` made.
"""

from __future__ import annotations

import json
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
from assay.detectors import NeuralCleanse
from assay.formats.module import from_module
from assay.models import ARCHITECTURES, Normalized
from assay.task import Split

STEPS, BATCH = 1000, 32
MODELS = (  # of audit_cifar10.py: ResNet-20s, clean or with an attack of 80 % ASR or more; each half of both kinds
    "third-party-20",
    "clean-tuned-a",
    "badnets-3-white",
    "badnets-4-random",
    "clean-tuned-c",
    "badnets-3-red",
    "blended-20",
    "clean-tuned-e",
)


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
    """Score, target and seconds of the shipped detector, everything included."""
    start = time.perf_counter()
    finding = NeuralCleanse()(from_module(net, shape=(3, 32, 32)), Split(x, None), seed=0)
    assert finding.score is not None, finding.reason
    assert finding.target is not None
    return finding.score, finding.target, time.perf_counter() - start


def theirs(net: nn.Module, x: Tensor, steps: int) -> tuple[float, int, float]:
    start = time.perf_counter()
    torch.manual_seed(0)
    sizes = [published(net, x, target, steps) for target in range(10)]
    return anomaly(sizes), int(torch.tensor(sizes).argmin()), time.perf_counter() - start


def compare(net: nn.Module, target: int, steps: int) -> dict[str, object]:
    """Both searches on one net; ``target`` -1 for a clean one."""
    x = load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)), limit=512).split("calibration").x[:512]
    mine, reference = ours(net, x), theirs(net, x, steps)
    at_full_length = reference[2] * STEPS / steps
    return {
        "target": target,
        "threads": torch.get_num_threads(),
        "ours": dict(zip(("score", "target", "seconds"), mine, strict=True)),
        "published": dict(zip(("index", "target", "seconds"), reference, strict=True)),
        "published_steps": steps,
        "published_seconds_at_1000_steps": at_full_length,
        "times_faster": at_full_length / mine[2],
    }


def run(directory: Path, shard: int, shards: int) -> None:
    for name in MODELS[shard::shards]:
        path = directory / f"{name}.speed.json"
        if path.exists():
            continue
        facts = json.loads((directory / name / "facts.json").read_text())
        artifact = formats.load(directory / name / "model.safetensors")
        row = compare(artifact.net, facts.get("target", -1), STEPS)
        path.write_text(json.dumps(row))
        print(name, row, flush=True)


def table(directory: Path) -> None:
    paths = {name: directory / f"{name}.speed.json" for name in MODELS}
    rows = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    clean = [row for row in rows.values() if row["target"] == -1]
    planted = [row for row in rows.values() if row["target"] != -1]
    result: dict[str, object] = {
        "not_yet_run": sorted(set(MODELS) - set(rows)),
        "times_faster": statistics.median(row["times_faster"] for row in rows.values()),
    }
    for who, key in (("ours", "score"), ("published", "index")):
        result[f"auc_{who}"] = auc([row[who][key] for row in planted], [row[who][key] for row in clean])
        result[f"right_target_{who}"] = sum(row[who]["target"] == row["target"] for row in planted)
    save("search_speed_resnet20", {**result, "models": rows})


def main(which: str, arguments: list[str]) -> None:
    if which == "resnet18":
        architecture = ARCHITECTURES["resnet18-cifar"]
        torch.manual_seed(0)
        net = Normalized(architecture.build(10), architecture.mean, architecture.std).eval()
        row = compare(net, -1, 20)
        note = "untrained weights: time only"
        save("search_speed_resnet18", {"note": note, "times_faster": row["times_faster"], "models": {"resnet18": row}})
    elif which == "table":
        table(Path(arguments[0]))
    else:
        shard, shards = [int(text) for text in arguments[1:3]] or [0, 1]
        run(Path(arguments[0]), shard, shards)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
