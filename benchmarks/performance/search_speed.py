"""The trigger search against Neural Cleanse as published, on the same models and machine.

The reference is written from the paper (Wang et al., IEEE S&P 2019): one class after the other, 1,000 steps a class at
batch 32, Adam 0.1, cost from 0.001 by factors of 2 (1.5 down) with patience 5, success at 99 %, on the net as it comes.
It does less than the authors' code, in which a step is about 31 batches, success is that of all of them together, and
a class may end early; so its time is the kinder one to it, and its index has more noise. Nothing of assay is in it.

Against it stand, joined to one number as in a verdict: the searches by gradients that an audit makes on the model as
given (masks, windows, additive patterns), and all that it tries on the model as given, triggers from a list too.

    python benchmarks/run.py search_speed resnet20 DIR [SHARD SHARDS]   # all of it on MODELS, resumable, rows in DIR
    python benchmarks/run.py search_speed table DIR                     # -> benchmarks/results/search_speed_resnet20.json
    python benchmarks/run.py search_speed resnet18                      # the reference's time from 20 steps a class

DIR also holds the models that `cifar_models.py DIR` made.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
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


def ours(detectors: Sequence[Detector], net: nn.Module, x: Tensor, accuracy: float | None) -> dict[str, object]:
    """Score, target and seconds of the shipped detectors, everything included."""
    start = time.perf_counter()
    artifact, clean = from_module(net, shape=(3, 32, 32)), Split(x, None)
    scores = scores_of(detector(artifact, clean, seed=0) for detector in detectors)
    null = load_shipped()
    assert null is not None
    found = null.matched_to(accuracy, data_profile(x)).with_candidate(scores).statistic(scores)
    assert found is not None
    target = scores[found.tests[0]].target
    seconds = time.perf_counter() - start
    return {"score": found.value, "target": target, "tests": list(found.tests), "seconds": seconds}


def theirs(net: nn.Module, x: Tensor, steps: int) -> dict[str, object]:
    start = time.perf_counter()
    torch.manual_seed(0)
    sizes = [published(net, x, target, steps) for target in range(10)]
    seconds = time.perf_counter() - start
    return {
        "score": anomaly(sizes),
        "target": int(torch.tensor(sizes).argmin()),
        "seconds": seconds,
        "steps": steps,
        "seconds_at_1000_steps": seconds * STEPS / steps,
    }


@cache
def pictures() -> Tensor:
    return load_data(SHARED / "data/cifar10", ImageSpec((3, 32, 32)), limit=512).split("calibration").x[:512]


def run(directory: Path, shard: int, shards: int) -> None:
    for name in list(MODELS)[shard::shards]:
        facts = json.loads((directory / name / "facts.json").read_text())
        net = formats.load(directory / name / "model.safetensors").module
        accuracy = facts["accuracy"]["value"]
        searches: dict[str, Callable[[], dict[str, object]]] = {
            who: partial(ours, detectors, net, pictures(), accuracy) for who, detectors in OURS.items()
        }
        searches["published"] = partial(theirs, net, pictures(), STEPS)
        for who, search in searches.items():
            path = directory / f"{name}.{who}.json"
            if not path.exists():
                path.write_text(json.dumps(search()))
                print(name, who, path.read_text(), flush=True)


def table(directory: Path) -> None:
    rows = {}
    for name in MODELS:
        paths = {who: directory / f"{name}.{who}.json" for who in (*OURS, "published")}
        if all(path.exists() for path in paths.values()):
            target = json.loads((directory / name / "facts.json").read_text()).get("target")
            rows[name] = row_of(target, {who: json.loads(path.read_text()) for who, path in paths.items()})
    clean = [row for row in rows.values() if row["target"] is None]
    planted = [row for row in rows.values() if row["target"] is not None]
    areas = {
        who: auc([row[who]["score"] for row in planted], [row[who]["score"] for row in clean])
        for who in (*OURS, "published")
    }
    result: dict[str, object] = {
        "threads": 1,
        "not_yet_run": [name for name in MODELS if name not in rows],
        "auc": areas,
        "right_target": {who: sum(row[who]["target"] == row["target"] for row in planted) for who in areas},
    }
    save_result("search_speed_resnet20", {**result, "times_faster": faster(rows), "models": rows})


def row_of(target: int | None, searches: dict[str, dict]) -> dict:
    full = searches["published"]["seconds_at_1000_steps"]
    return {"target": target, **searches, "times_faster": {who: full / searches[who]["seconds"] for who in OURS}}


def faster(rows: dict[str, dict]) -> dict[str, float]:
    return {who: statistics.median(row["times_faster"][who] for row in rows.values()) for who in OURS}


def main(which: str, arguments: list[str]) -> None:
    torch.set_num_threads(1)
    if which == "resnet18":
        architecture = ARCHITECTURES["resnet18-cifar"]
        torch.manual_seed(0)
        net = Normalized(architecture.build(10), architecture.mean, architecture.std).eval()
        mine = {who: ours(detectors, net, pictures(), None) for who, detectors in OURS.items()}
        rows = {"resnet18": row_of(None, {**mine, "published": theirs(net, pictures(), 20)})}
        note = "untrained weights: time only"
        save_result("search_speed_resnet18", {"threads": 1, "note": note, "times_faster": faster(rows), "models": rows})
    elif which == "table":
        table(Path(arguments[0]))
    else:
        shard, shards = [int(text) for text in arguments[1:3]] or [0, 1]
        run(Path(arguments[0]), shard, shards)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
