"""The leaderboard's page with 10,000 made-up records: how long it takes to write, to open in Chromium and to sort.

    python benchmarks/run.py leaderboard_speed            # -> benchmarks/results/leaderboard_speed.json
    python benchmarks/run.py leaderboard_speed FOLDER     # the page only, to look at

Times are real time, from the start of the navigation, each run in a fresh profile; the worst of RUNS is given.
``first_content``: the page's head is painted; ``painted``: so is the first view; a sort ends with its rows laid out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lib.paths import ROOT
from lib.results import save_result

from assay.bench.cells import MatrixEntry, entries
from assay.bench.leaderboard import write_leaderboard
from assay.bench.records import Record
from assay.bench.spec import Method, Spec, TaskSpec, ValidityCriteria
from assay.io.images import data_uri, to_image
from assay.nn.metrics import Rate

sys.path.append(str(ROOT / "tests"))
from support.chromium import Chromium  # the tests drive the same

RUNS = 3

PLACE, TUNE = Method("attack"), Method("fine-tune", ("epochs=2",))
CHAINS = {
    "as planted": (PLACE,),
    "fine-tuned": (PLACE, TUNE),
    "pruned": (PLACE, Method("prune-magnitude", ("share=0.5",))),
    "fine-tuned, int8": (PLACE, TUNE, Method("int8")),
    "fine-tuned, pruned": (PLACE, TUNE, Method("prune-magnitude", ("share=0.5",))),
}
ATTACKS = ("none", "badnets", "blended", "wanet", "sig", "lc", "ftrojan", "ssba")
DETECTORS = (
    *("neural-cleanse", "universal-perturbation", "sparse-frequency", "smooth-warp", "latent-shift", "max-margin"),
    *("channel-lipschitz", "blend-scan", "weight-norm", "random-score", "strip", "scale-up", "beatrix", "scan"),
    *("mntd", "free-eagle", "tabor", "k-arm", "mm-bd", "ulp"),
)
MITIGATIONS = ("fine-tune", "fine-prune", "anp", "clp", "i-bau")


def spec() -> Spec:
    """2 tasks x 5 seeds x 5 chains x 8 attacks, each measured, tested 20 times, and but for int8 mitigated 5 times."""
    return Spec(
        "made-up",
        (
            TaskSpec("cifar10", "data/cifar10", "resnet20-cifar", 10_000),
            TaskSpec("signs", "synth:signs", "resnet20-cifar"),
        ),
        tuple(range(5)),
        {name: Method("none") if name == "none" else Method("badnets", (f"like={name}",)) for name in ATTACKS},
        CHAINS,
        tuple(DETECTORS),
        {name: (Method("fine-tune", (f"like={name}",)),) for name in MITIGATIONS},
    )


def made_up(matrix: Spec) -> Iterator[tuple[MatrixEntry, Record]]:
    """Every cell of ``matrix`` with a record of some state."""
    rng = np.random.default_rng(0)
    broken: dict[tuple[Any, ...], str] = {}  # models that ended as anything but done, on which nothing else was run
    for entry in entries(matrix):
        cell, model = entry.cell, (entry.task, entry.chain, entry.attack, entry.cell.seed)
        chance, state, result, error = rng.random(), broken.get(model, "done"), None, None
        if state != "done":
            error = None if state == "waiting" else f"what it needs ended as {state}: measure of badnets"
        elif chance < 0.01:
            state, error = "failed", "RuntimeError: expected 3 channels, came 1"
        elif chance > 0.97:
            state = "waiting"
        else:
            result = RESULTS[cell.kind](entry, rng)
            state = "invalid" if result.get("valid") is False else "done"
        if cell.kind == "measure" and state != "done":
            broken[model] = state
        seconds, place = (
            (float(rng.gamma(2, 20)), f"worker-{rng.integers(4)}:{rng.integers(9999)}") if result else (None, None)
        )
        yield entry, Record(cell.key, cell.kind, {}, state, result, error, seconds, place)


def success(entry: MatrixEntry, rng: np.random.Generator) -> float:
    """How well an attack does: some are weak, and some of the chains' steps hurt it."""
    if ATTACKS.index(entry.attack) == 6:
        return float(rng.uniform(0.1, 0.6))
    worn = 0.05 * ATTACKS.index(entry.attack) * (len(entry.cell.steps) - 1)
    return float(np.clip(rng.normal(0.97 - worn, 0.03), 0, 1))


def rate(value: float, samples: int = 10_000) -> dict[str, Any]:
    return Rate(round(float(np.clip(value, 0, 1)) * samples), samples).to_json()


def measured(entry: MatrixEntry, rng: np.random.Generator) -> dict[str, Any]:
    accuracy = rate(rng.normal(0.91, 0.005))
    if entry.attack == "none":
        return {"clean_accuracy": accuracy}
    asr, band = success(entry, rng), entry.cell.valid or ValidityCriteria()
    why = "" if asr >= band.asr else f"ASR {asr:.3f} is below {band.asr}"
    return {
        "schema": "assay.metrics/1",
        "clean_accuracy": accuracy,
        "planted_success": rate(asr, 9000),
        "attack_success": rate(asr, 9000),
        "robust_accuracy": rate((1 - asr) * 0.9, 9000),
        "untriggered": rate(0.01, 9000),
        "control": rate(rng.uniform(0, 0.03), 9000),
        "control_accuracy": rate(0.92),
        "valid": not why,
        "why_invalid": why,
    }


def tested(entry: MatrixEntry, rng: np.random.Generator) -> dict[str, Any]:
    strength = (DETECTORS.index(entry.cell.method) * 7 + ATTACKS.index(entry.attack) * 3) % 10 / 4
    if entry.cell.method == "scan" and entry.task == "signs":
        return {
            "status": "abstained",
            "reason": "needs 32 clean samples a class, and has 12",
            "score": None,
            "target": None,
        }
    backdoored = entry.attack != "none"
    return {
        "status": "ok",
        "reason": "",
        "score": float(rng.normal(strength if backdoored else 0)),
        "target": int(rng.integers(10)) if rng.random() < 0.4 else 0,
        "planted_target": 0 if backdoored else None,
        "backdoored": backdoored,
        "numbers": {"success_rate": 0.97, "mask_l1": float(rng.gamma(3, 9)), "steps": 150},
        "pictures": {name: noise(rng) for name in ("trigger", "before", "after")} if backdoored else {},
    }


def noise(rng: np.random.Generator) -> str:
    """An image of the size in a record; noise does not compress, so it is the worst case."""
    return data_uri(to_image(rng.random((3, 32, 32), dtype=np.float32)), 64)


def mitigated(entry: MatrixEntry, rng: np.random.Generator) -> dict[str, Any]:
    rates = measured(entry, rng)
    if "attack_success" in rates:
        rates["attack_success"] = rate(rng.uniform(0, 0.5), 9000)
    return {
        **{key: value for key, value in rates.items() if key not in ("valid", "why_invalid")},
        "repair_seconds": 12.5,
    }


RESULTS = {"measure": measured, "detect": tested, "mitigate": mitigated}


def opened(page: Path) -> dict[str, Any]:
    """What the page says of itself, see `measure` in templates/leaderboard/page.js."""
    with Chromium() as browser:
        browser.open(f"{page.as_uri()}#timing=1")
        times = json.loads(browser.wait("document.getElementById('timing')?.textContent"))
        return {"browser": browser.value("navigator.userAgent"), **times}


def main(folder: str | None = None) -> None:
    found = list(made_up(spec()))
    if folder is not None:
        write_leaderboard(found, Path(folder), title="Made-up records", specs={"made-up": ""})
        return
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        files = write_leaderboard(found, Path(scratch) / "page", title="Made-up records", specs={"made-up": ""})
        seconds = time.perf_counter() - start
        sizes = {name: path.stat().st_size for name, path in files.items()}
        runs = [opened(files["index.html"]) for _ in range(RUNS)]
    result = {
        "records": len(found),
        "write_seconds": round(seconds, 1),
        "bytes": sizes,
        "load_average": os.getloadavg()[0],
        **{name: max(run[name] for run in runs) for name in ("first_content_ms", "painted_ms")},
        "slowest_sort_ms": max(max(run["sort_ms"].values()) for run in runs),
        "search_ms": max(run["search_ms"] for run in runs),
        "open_record_ms": max(run["open_record_ms"] for run in runs),
        "runs": runs,
    }
    print({key: value for key, value in result.items() if key != "runs"})
    save_result("leaderboard_speed", result)


if __name__ == "__main__":
    main(*sys.argv[1:])
