"""Speed of the leaderboard's page with 10,000 random records: writing, opening in Chromium, and sorting.

    python benchmarks/run.py leaderboard_speed            # -> benchmarks/results/leaderboard_speed.json
    python benchmarks/run.py leaderboard_speed FOLDER     # writes the page only

Times are wall-clock times from the start of the navigation, each run in a fresh profile; the maximum of RUNS is given.
``first_content``: the page's head is painted. ``painted``: the first view is painted. A sort ends after the layout of
its rows.
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
from lib import commands
from lib.paths import ROOT
from lib.results import save_result

from assay.bench.cells import MatrixEntry, entries
from assay.bench.leaderboard import write_leaderboard
from assay.bench.records import Record
from assay.bench.spec import Method, Spec, TaskSpec, ValidityCriteria
from assay.io.images import data_uri, to_image
from assay.nn.metrics import Rate

sys.path.append(str(ROOT / "tests"))
from support.chromium import Chromium  # driver of the page tests

RUNS = 3

ATTACK, TUNE = Method("attack"), Method("fine-tune", ("epochs=2",))
CHAINS = {
    "as planted": (ATTACK,),
    "fine-tuned": (ATTACK, TUNE),
    "pruned": (ATTACK, Method("prune-magnitude", ("share=0.5",))),
    "fine-tuned, int8": (ATTACK, TUNE, Method("int8")),
    "fine-tuned, pruned": (ATTACK, TUNE, Method("prune-magnitude", ("share=0.5",))),
}
ATTACKS = ("none", "badnets", "blended", "wanet", "sig", "lc", "ftrojan", "ssba")
DETECTORS = (
    *("neural-cleanse", "universal-perturbation", "sparse-frequency", "smooth-warp", "latent-shift", "max-margin"),
    *("channel-lipschitz", "blend-scan", "weight-norm", "random-score", "strip", "scale-up", "beatrix", "scan"),
    *("mntd", "free-eagle", "tabor", "k-arm", "mm-bd", "ulp"),
)
MITIGATIONS = ("fine-tune", "fine-prune", "anp", "clp", "i-bau")


def spec() -> Spec:
    """Return 2 tasks x 5 seeds x 5 chains x 8 attacks.

    Each is measured, tested 20 times and, except int8, mitigated 5 times.
    """
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


def random_records(matrix: Spec) -> Iterator[tuple[MatrixEntry, Record]]:
    """Yield every cell of ``matrix`` with a record of a random state."""
    rng = np.random.default_rng(0)
    broken: dict[tuple[Any, ...], str] = {}  # state of models that are not done; no other cell of these ran
    for entry in entries(matrix):
        cell, model = entry.cell, (entry.task, entry.chain, entry.attack, entry.cell.seed)
        chance, state, result, error = rng.random(), broken.get(model, "done"), None, None
        if state != "done":
            error = None if state == "waiting" else f"a dependency is {state}: measure of badnets"
        elif chance < 0.01:
            state, error = "failed", "RuntimeError: expected 3 channels, got 1"
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


def success_rate(entry: MatrixEntry, rng: np.random.Generator) -> float:
    """Return the ASR of a cell: some attacks are weak, and the stages of a chain reduce it."""
    if ATTACKS.index(entry.attack) == 6:
        return float(rng.uniform(0.1, 0.6))
    loss = 0.05 * ATTACKS.index(entry.attack) * (len(entry.cell.steps) - 1)
    return float(np.clip(rng.normal(0.97 - loss, 0.03), 0, 1))


def rate(value: float, samples: int = 10_000) -> dict[str, Any]:
    """Return a rate as in records."""
    return Rate(round(float(np.clip(value, 0, 1)) * samples), samples).to_json()


def measure_result(entry: MatrixEntry, rng: np.random.Generator) -> dict[str, Any]:
    """Return the result of a cell of kind ``measure``."""
    accuracy = rate(rng.normal(0.91, 0.005))
    if entry.attack == "none":
        return {"clean_accuracy": accuracy}
    asr, criteria = success_rate(entry, rng), entry.cell.valid or ValidityCriteria()
    why = "" if asr >= criteria.asr else f"ASR {asr:.3f} is below {criteria.asr}"
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


def detect_result(entry: MatrixEntry, rng: np.random.Generator) -> dict[str, Any]:
    """Return the result of a cell of kind ``detect``."""
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
        "pictures": {name: random_image(rng) for name in ("trigger", "before", "after")} if backdoored else {},
    }


def random_image(rng: np.random.Generator) -> str:
    """Return an image of the size in a record. Noise does not compress, so it is the worst case."""
    return data_uri(to_image(rng.random((3, 32, 32), dtype=np.float32)), 64)


def mitigate_result(entry: MatrixEntry, rng: np.random.Generator) -> dict[str, Any]:
    """Return the result of a cell of kind ``mitigate``."""
    rates = measure_result(entry, rng)
    if "attack_success" in rates:
        rates["attack_success"] = rate(rng.uniform(0, 0.5), 9000)
    return {
        **{key: value for key, value in rates.items() if key not in ("valid", "why_invalid")},
        "repair_seconds": 12.5,
    }


RESULTS = {"measure": measure_result, "detect": detect_result, "mitigate": mitigate_result}


def page_times(page: Path) -> dict[str, Any]:
    """Return the times measured by the page, see `measure` in templates/leaderboard/page.js."""
    with Chromium() as browser:
        browser.open(f"{page.as_uri()}#timing=1")
        times = json.loads(browser.wait("document.getElementById('timing')?.textContent"))
        return {"browser": browser.value("navigator.userAgent"), **times}


def main(folder: Path | None = None) -> None:
    """Measure the page, and write the result file; with ``folder`` write the page only."""
    records = list(random_records(spec()))
    if folder is not None:
        write_leaderboard(records, folder, title="Made-up records", specs={"made-up": ""})
        return
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        files = write_leaderboard(records, Path(scratch) / "page", title="Made-up records", specs={"made-up": ""})
        seconds = time.perf_counter() - start
        sizes = {name: path.stat().st_size for name, path in files.items()}
        runs = [page_times(files["index.html"]) for _ in range(RUNS)]
    result = {
        "records": len(records),
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


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("folder", nargs="?", type=Path, help="write the page only, to this folder")
    main(command_line.parse_args().folder)
