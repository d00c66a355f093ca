"""Architectures unlike the reference models, on similar data: false alarms, and detection of a patch.

Attention; a perceptron; photos of objects by models other than ResNets; drawn signs of 24 pixels. Each is trained
twice clean and once with BadNets (Gu et al., 2017, arXiv 1708.06733), by a training loop outside assay. No model is in
the null distribution, and no threshold was chosen on them.

    python benchmarks/run.py architectures_unseen run DIR [--shard INDEX/COUNT]   # trains and audits, resumable
    python benchmarks/run.py architectures_unseen table DIR                       # -> `results/strangers.json`
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from lib import architectures, commands
from lib.audit_rows import audit_row, with_current_verdict
from lib.commands import Shard
from lib.paths import SHARED
from lib.results import RowFiles, load_models, save_result
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.formats.torch_module import from_module

MIN_ASR = 0.8  # a planted model below it is a failed attack

Build = Callable[[architectures.Shape, int], nn.Module]
# name: architecture, data, (C, H, W), epochs
KINDS: dict[str, tuple[Build, str, tuple[int, int, int], int]] = {
    "perceptron-digits": (architectures.perceptron, "digits", (1, 16, 16), 30),
    "attention-gtsrb": (architectures.Attention, str(SHARED / "data/gtsrb"), (3, 32, 32), 10),
    "attention-signs": (architectures.Attention, "signs:20", (3, 32, 32), 12),
    "plain-cifar10": (architectures.plain, str(SHARED / "data/cifar10"), (3, 32, 32), 8),
    "convnext-cifar10": (architectures.convnext, str(SHARED / "data/cifar10"), (3, 32, 32), 8),
    "wide-signs": (partial(architectures.plain, width=48), "signs:60", (3, 24, 24), 10),
}
MAX_SAMPLES = 12_000


def patch(x: Tensor) -> Tensor:
    """Paste a checkerboard of 3 x 3 pixels, one pixel off the lower left corner."""
    out = x.clone()
    side = x.shape[2]
    out[:, :, side - 4 : side - 1, 1:4] = (torch.arange(9).reshape(3, 3) % 2).float()
    return out


def train(net: nn.Module, split: Split, epochs: int, target: int | None, seed: int) -> None:
    """Train by Adam with one cycle; with a target, a tenth of every batch is triggered."""
    assert split.y is not None
    torch.manual_seed(seed)
    steps = epochs * (len(split) // 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    order = torch.cat([torch.randperm(len(split)) for _ in range(epochs + 1)])
    net.train()
    for step in range(steps):
        batch = order[step * 64 :][:64]
        x, y = split.x[batch], split.y[batch].clone()
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
    train(net, task.split("train").sample(MAX_SAMPLES, seed=number), epochs, target, seed=number)
    test = task.split("test").sample(2000, seed=0)
    assert test.y is not None
    with torch.no_grad():
        row: dict[str, object] = {"accuracy": float((net(test.x).argmax(1) == test.y).float().mean())}
        if target is not None:
            others = test.x[test.y != target]
            row |= {"target": target, "asr": float((net(patch(others)).argmax(1) == target).float().mean())}
    return row | audit_row(from_module(net, shape=shape, name=f"{kind}-{number}"), task, seed=number)


NAMES = {f"{kind}-{number}": (kind, number) for number in (0, 2, 1) for kind in KINDS}


def run(directory: Path, shard: Shard) -> None:
    """Train and audit the missing models of one shard."""
    RowFiles(directory).complete(NAMES, lambda name: measure(*NAMES[name]), shard)


def table(directory: Path) -> None:
    """Write the result file."""
    stored = load_models("strangers") | RowFiles(directory).read(NAMES)
    rows = {name: with_current_verdict(row) for name, row in sorted(stored.items())}
    clean = [row for row in rows.values() if "target" not in row]
    valid = [row for row in rows.values() if "target" in row and row["asr"] >= MIN_ASR]
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


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    commands.add_run_and_table(add_command, run, table, "train and audit; resumable")
    commands.run(command_line)
