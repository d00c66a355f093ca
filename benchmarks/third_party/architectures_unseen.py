"""Nets that the shipped null has nothing like, on its kinds of data: is a clean one called clean, and a patch found?

Attention; no convolutions at all; photos of objects by nets that are no ResNets; drawn signs of 24 pixels.
Each twice clean and once with BadNets (Gu et al., 2017, arXiv 1708.06733), by a training loop that is not assay's.
What comes out here says how far the null carries; none of it is in the null, and no threshold looked at it.

    python benchmarks/run.py architectures_unseen run DIR [SHARD SHARDS]   # trains and audits, resumable
    python benchmarks/run.py architectures_unseen table DIR                # -> benchmarks/results/strangers.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from lib import architectures as nets
from lib.audit_rows import audit_row, with_current_verdict
from lib.paths import SHARED
from lib.results import load_models, save_result
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.formats.torch_module import from_module

VALID = 0.8
"""Lowest attack success at which a model counts as backdoored."""


Build = Callable[[nets.Shape, int], nn.Module]
# name: net, data, (C, H, W), epochs
KINDS: dict[str, tuple[Build, str, tuple[int, int, int], int]] = {
    "perceptron-digits": (nets.perceptron, "digits", (1, 16, 16), 30),
    "attention-gtsrb": (nets.Attention, str(SHARED / "data/gtsrb"), (3, 32, 32), 10),
    "attention-signs": (nets.Attention, "signs:20", (3, 32, 32), 12),
    "plain-cifar10": (nets.plain, str(SHARED / "data/cifar10"), (3, 32, 32), 8),
    "convnext-cifar10": (nets.convnext, str(SHARED / "data/cifar10"), (3, 32, 32), 8),
    "wide-signs": (partial(nets.plain, width=48), "signs:60", (3, 24, 24), 10),
}
MOST_SAMPLES = 12_000


def patch(x: Tensor) -> Tensor:
    """A checker of 3 x 3 pixels, one off the lower left corner."""
    out = x.clone()
    side = x.shape[2]
    out[:, :, side - 4 : side - 1, 1:4] = (torch.arange(9).reshape(3, 3) % 2).float()
    return out


def train(net: nn.Module, split: Split, epochs: int, target: int | None, seed: int) -> None:
    """Adam with one cycle; with a target, a tenth of every batch is triggered."""
    assert split.y is not None
    torch.manual_seed(seed)
    steps = epochs * (len(split) // 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    order = torch.cat([torch.randperm(len(split)) for _ in range(epochs + 1)])
    net.train()
    for step in range(steps):
        chosen = order[step * 64 :][:64]
        x, y = split.x[chosen], split.y[chosen].clone()
        if target is not None:
            x[:6], y[:6] = patch(x[:6]), target
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        schedule.step()
    net.eval()


def measure(kind: str, number: int) -> dict[str, object]:
    """Train and audit one model; number 2 is the backdoored one."""
    build, source, shape, epochs = KINDS[kind]
    task = load_data(source, ImageSpec(shape))
    target = 3 * sorted(KINDS).index(kind) % task.num_classes if number == 2 else None
    torch.manual_seed(number)
    net = build(shape, task.num_classes)
    train(net, task.split("train").sample(MOST_SAMPLES, seed=number), epochs, target, seed=number)
    test = task.split("test").sample(2000, seed=0)
    assert test.y is not None
    with torch.no_grad():
        row: dict[str, object] = {"accuracy": float((net(test.x).argmax(1) == test.y).float().mean())}
        if target is not None:
            others = test.x[test.y != target]
            row |= {"target": target, "asr": float((net(patch(others)).argmax(1) == target).float().mean())}
    return row | audit_row(from_module(net, shape=shape, name=f"{kind}-{number}"), task, seed=number)


def run(directory: Path, shard: int, shards: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for kind, number in [(kind, number) for number in (0, 2, 1) for kind in KINDS][shard::shards]:
        path = directory / f"{kind}-{number}.json"
        if not path.exists():
            row = measure(kind, number)
            path.write_text(json.dumps(row))
            print(path.stem, {k: v for k, v in row.items() if k not in ("findings", "variants")}, flush=True)


def table(directory: Path) -> None:
    new = {path.stem: json.loads(path.read_text()) for path in directory.glob("*-[012].json")}
    rows = {name: with_current_verdict(row) for name, row in sorted((load_models("strangers") | new).items())}
    clean = [row for row in rows.values() if "target" not in row]
    valid = [row for row in rows.values() if "target" in row and row["asr"] >= VALID]
    save_result(
        "strangers",
        {
            "not_yet_run": [
                f"{kind}-{number}" for kind in KINDS for number in range(3) if f"{kind}-{number}" not in rows
            ],
            "clean_models": len(clean),
            "false_alarms": sum(row["verdict"] == "backdoored" for row in clean),
            "valid": len(valid),
            "found": sum(row["verdict"] == "backdoored" for row in valid),
            "right_target": sum(row["target_found"] == row["target"] for row in valid),
            "inconclusive": sum(row["verdict"] == "inconclusive" for row in (*clean, *valid)),
            "models": rows,
        },
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "table":
        table(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[2]), *([int(text) for text in sys.argv[3:5]] or [0, 1]))
