"""Speed of the trigger search compared with Neural Cleanse as published, on the same models and machine.

The reference is written from the paper (Wang et al., IEEE S&P 2019). It searches one class after the other, 1,000
steps a class at batch 32, Adam 0.1, on the unchanged model. The cost starts at 0.001 and changes by factors of 2 (1.5
down) with patience 5; success is 99 %. It does less than the authors' code. There a step is about 31 batches, success
counts all of them together, and a class may end early. So its time here favours the reference, and its index has more
noise. It uses no code of assay.

It is compared with two sets of tests on the model as given, each combined to one statistic as in a verdict. The first
set is the gradient searches of an audit (masks, windows, additive patterns). The second is all tests, including listed
triggers.

    python benchmarks/run.py search_speed resnet20 DIR [--shard INDEX/COUNT]   # all searches on MODELS, resumable
    python benchmarks/run.py search_speed table DIR     # -> benchmarks/results/search_speed_resnet20.json
    python benchmarks/run.py search_speed resnet18      # the reference's time from 20 steps a class

DIR also holds the models of `cifar_models.py DIR`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from lib import commands
from lib.commands import Shard
from lib.paths import SHARED
from lib.results import save_result
from lib.statistics import auc
from torch import Tensor, nn

from assay import formats
from assay.auditing.verdict import scores_of
from assay.calibration.data_profile import data_profile
from assay.calibration.file import load_shipped
from assay.core.dataset import Split
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.detectors import LocalPatch, NeuralCleanse, UniversalPerturbation, default_detectors
from assay.detectors.base import Detector
from assay.formats.torch_module import from_module
from assay.nn.architectures import ARCHITECTURES, Normalized
from performance.cifar_models import MODELS

STEPS, BATCH = 1000, 32
OURS = {
    "gradients": (NeuralCleanse(), LocalPatch(), UniversalPerturbation()),
    "all": default_detectors(),
}


def published_search(net: nn.Module, x: Tensor, target: int, steps: int) -> float:
    """Return the smallest L1 norm of a mask that sends images to ``target``; infinite if the search fails."""
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


def anomaly_index(sizes: list[float]) -> float:
    """Return the paper's index: distance of the smallest from the median, in median absolute deviations."""
    finite = [s for s in sizes if s != float("inf")] or [0.0]
    median = statistics.median(finite)
    deviation = 1.4826 * statistics.median(abs(s - median) for s in finite)
    return (median - min(finite)) / max(deviation, 1e-9)


def run_ours(detectors: Sequence[Detector], net: nn.Module, x: Tensor, accuracy: float | None) -> dict[str, object]:
    """Return score, target and total seconds of the shipped detectors."""
    start = time.perf_counter()
    artifact, clean = from_module(net, shape=(3, 32, 32)), Split(x, None)
    scores = scores_of(detector(artifact, clean, seed=0) for detector in detectors)
    null = load_shipped()
    assert null is not None
    statistic = null.matched_to(accuracy, data_profile(x)).with_candidate(scores).statistic(scores)
    assert statistic is not None
    target = scores[statistic.tests[0]].target
    seconds = time.perf_counter() - start
    return {"score": statistic.value, "target": target, "tests": list(statistic.tests), "seconds": seconds}


def run_published(net: nn.Module, x: Tensor, steps: int) -> dict[str, object]:
    """Return score, target and seconds of the reference."""
    start = time.perf_counter()
    torch.manual_seed(0)
    sizes = [published_search(net, x, target, steps) for target in range(10)]
    seconds = time.perf_counter() - start
    return {
        "score": anomaly_index(sizes),
        "target": int(torch.tensor(sizes).argmin()),
        "seconds": seconds,
        "steps": steps,
        "seconds_at_1000_steps": seconds * STEPS / steps,
    }


@cache
def images() -> Tensor:
    """Return 512 calibration images."""
    return load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)), limit=512).split("calibration").x[:512]


def run(directory: Path, shard: Shard) -> None:
    """Run the missing searches of one shard."""
    for name in shard.select(MODELS):
        facts = json.loads((directory / name / "facts.json").read_text())
        net = formats.load(directory / name / "model.safetensors").module
        accuracy = facts["accuracy"]["value"]
        searches: dict[str, Callable[[], dict[str, object]]] = {
            method: partial(run_ours, detectors, net, images(), accuracy) for method, detectors in OURS.items()
        }
        searches["published"] = partial(run_published, net, images(), STEPS)
        for method, search in searches.items():
            path = directory / f"{name}.{method}.json"
            if not path.exists():
                path.write_text(json.dumps(search()))
                print(name, method, path.read_text(), flush=True)


def table(directory: Path) -> None:
    """Write the result file."""
    rows = {}
    for name in MODELS:
        paths = {method: directory / f"{name}.{method}.json" for method in (*OURS, "published")}
        if all(path.exists() for path in paths.values()):
            target = json.loads((directory / name / "facts.json").read_text()).get("target")
            rows[name] = row_of(target, {method: json.loads(path.read_text()) for method, path in paths.items()})
    clean = [row for row in rows.values() if row["target"] is None]
    planted = [row for row in rows.values() if row["target"] is not None]
    areas = {
        method: auc([row[method]["score"] for row in planted], [row[method]["score"] for row in clean])
        for method in (*OURS, "published")
    }
    result: dict[str, object] = {
        "threads": 1,
        "not_yet_run": [name for name in MODELS if name not in rows],
        "auc": areas,
        "right_target": {method: sum(row[method]["target"] == row["target"] for row in planted) for method in areas},
    }
    save_result("search_speed_resnet20", {**result, "times_faster": faster(rows), "models": rows})


def row_of(target: int | None, searches: dict[str, dict]) -> dict:
    """Return the row of one model."""
    full = searches["published"]["seconds_at_1000_steps"]
    return {
        "target": target,
        **searches,
        "times_faster": {method: full / searches[method]["seconds"] for method in OURS},
    }


def faster(rows: dict[str, dict]) -> dict[str, float]:
    """Return the median speed-up of each set of tests."""
    return {method: statistics.median(row["times_faster"][method] for row in rows.values()) for method in OURS}


def untrained_resnet18() -> None:
    """Measure the times on an untrained ResNet-18, and write the result file."""
    architecture = ARCHITECTURES["resnet18-cifar"]
    torch.manual_seed(0)
    net = Normalized(architecture.build(10), architecture.mean, architecture.std).eval()
    searches = {method: run_ours(detectors, net, images(), None) for method, detectors in OURS.items()}
    rows = {"resnet18": row_of(None, {**searches, "published": run_published(net, images(), 20)})}
    note = "untrained weights: time only"
    save_result("search_speed_resnet18", {"threads": 1, "note": note, "times_faster": faster(rows), "models": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    commands.add_run_and_table(add_command, run, table, "run all searches; resumable", name="resnet20")
    add_command("resnet18", untrained_resnet18, "measure times on an untrained ResNet-18")
    commands.run(command_line)
