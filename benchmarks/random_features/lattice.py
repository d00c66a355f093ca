"""Recovery of the keys of random features by width, key, noise and number of features.

The cells are those of ../shared/notes/undetectable.md, section e4, and harder ones; three keys each. Also the power of
generic tests of distributions. They have no power against the long keys of the construction.

    python benchmarks/run.py lattice [SECONDS]      # -> benchmarks/results/lattice.json
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from lib import commands
from lib.results import save_result
from scipy.stats import kstest

from assay.attacks.random_features.rff_clwe import RandomFeatures, hclwe
from assay.detectors.budget import Budget
from assay.nn.lattice import periodicity, reduction_attempts, required_block_size

# Width D, entries d of the key, noise, directions m.
CELLS = (
    *((8, 8, 0.05, 1200), (10, 10, 0.01, 1200), (12, 12, 0.1, 1200), (16, 16, 16**-2, 1200), (16, 16, 0.02, 1200)),
    *((16, 16, 0.05, 1200), (24, 24, 0.01, 1200), (24, 24, 0.02, 1200), (32, 32, 32**-2, 1200)),
    *((48, 48, 48**-2, 1200), (64, 10, 1e-4, 1200)),
    *((8, 8, 0.1, 1200), (12, 12, 0.05, 1200), (16, 16, 0.05, 80), (32, 32, 0.01, 1200), (64, 10, 0.01, 1200)),
)
BROKEN_IN_NOTES = 11  # the first cells: their keys are recovered in the notes
HARDER = (256, 256, 0.05, 1200)
KEYS = 3
HONEST_LAYERS, KEYED_LAYERS, LEVEL = 200, 40, 0.05  # for the power of the generic tests


def recover_key(width: int, support: int, noise: float, count: int, seed: int, seconds: float) -> dict[str, Any]:
    """Search one key by lattice reduction."""
    features, key = RandomFeatures(width=width, support=support, noise=noise, count=count).backdoored(seed=seed)
    directions = features.directions.double().numpy()
    start, budget, reductions, last = time.perf_counter(), Budget(seconds), 0, None
    for attempt in reduction_attempts(directions, noise=noise, remaining_seconds=budget.left, seed=seed):
        reductions, last = reductions + 1, attempt
    true_key = key.key.double().numpy()
    found = last is not None and last.key is not None
    error = min(np.linalg.norm(last.key - true_key), np.linalg.norm(last.key + true_key)) if found else None  # type: ignore[union-attr,operator]
    return {
        "found": bool(found),
        "right": None if error is None else bool(error < 0.5),
        "block": None if last is None else last.block,
        "reductions": reductions,
        "seconds": round(time.perf_counter() - start, 1),
        "agreement_of_the_key": round(periodicity(directions, true_key), 3),
    }


def statistics_of(directions: np.ndarray) -> dict[str, float]:
    """Return the statistics of the generic tests; larger is more suspicious."""
    covariance = directions.T @ directions / len(directions)
    return {
        "ks": float(max(kstest(column, "norm").statistic for column in directions.T)),
        "spectrum": float(np.linalg.eigvalsh(covariance)[-1]),
        "diagonal": float(np.abs(np.diag(covariance) - 1).max()),
        "periodicity of a random key": periodicity(
            directions, 2 * np.sqrt(directions.shape[1]) * np.eye(directions.shape[1])[0]
        ),
    }


def power(width: int, length: float, count: int) -> dict[str, float]:
    """Return for each test the fraction of 40 keyed layers above the 95 % quantile of 200 honest ones."""
    generator = torch.Generator().manual_seed(0)
    honest = [statistics_of(torch.randn(count, width, generator=generator).numpy()) for _ in range(HONEST_LAYERS)]
    keyed = []
    for _ in range(KEYED_LAYERS):
        key = torch.randn(width, generator=generator)
        keyed.append(statistics_of(hclwe(count, length * key / key.norm(), 0.02, generator).numpy()))
    bounds = {name: float(np.quantile([row[name] for row in honest], 1 - LEVEL)) for name in honest[0]}
    return {name: round(float(np.mean([row[name] > bound for row in keyed])), 3) for name, bound in bounds.items()}


def main(seconds: float) -> None:
    """Measure all cells, and write the result file."""
    rows = []
    for number, cell in enumerate(CELLS):
        tries = [recover_key(*cell, seed, seconds) for seed in range(KEYS)]
        rows.append(
            {
                **dict(zip(("width", "key", "noise", "directions"), cell, strict=True)),
                "broken_in_notes": number < BROKEN_IN_NOTES,
                "expected": required_block_size(cell[0], cell[2]),
                "found": sum(t["found"] and t["right"] for t in tries),
                "tries": tries,
            }
        )
        print(cell, "found", rows[-1]["found"], "of", KEYS, [t["seconds"] for t in tries], flush=True)
    curve = [
        {"width": 16, "length": g, "directions": 2000, **power(16, g, 2000)}
        for g in (0.3, 0.4, 0.5, 0.6, 0.7, 1.0, 8.0)
    ]
    for point in curve:
        print(point, flush=True)
    broken = [row for row in rows if row["broken_in_notes"]]
    save_result(
        "lattice",
        {
            "seconds_each": seconds,
            "broken": [sum(row["found"] > 0 for row in broken), len(broken)],
            "cells": rows,
            "harder": {
                "cell": HARDER,
                "needed": required_block_size(HARDER[0], HARDER[2]) or "more than BKZ-40",
                "tried": False,
            },
            "power": curve,
        },
    )


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("seconds", nargs="?", type=float, default=40.0, help="budget of one key")
    main(command_line.parse_args().seconds)
