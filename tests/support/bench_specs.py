"""A small specification of a bench, and invented results of its cells."""

from __future__ import annotations

import copy
from typing import Any

from assay.bench.cells import MatrixEntry

SMALL: dict[str, Any] = {
    "name": "small",
    "tasks": {"signs": {"data": "signs:6", "arch": "resnet8-cifar", "limit": 500}},
    "seeds": [0, 1],
    "attacks": {
        "none": "none",
        "corner": {"badnets": {"patch": {"size": 4, "place": [1, 2]}, "recipe": {"epochs": 3}}},
    },
    "chains": {"scratch": ["attack"], "shipped": ["train", "attack", {"prune-magnitude": {"rate": 0.5}}]},
    "detectors": ["patch-scan", "random-score"],
    "mitigations": {"tuned": ["fine-tune"]},
    "valid": {"asr": 0.9},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return SMALL with another value at a path like ``tasks/signs/limit``."""
    document = copy.deepcopy(SMALL)
    place = document
    *outer, last = path.split("/")
    for key in outer:
        place = place[key]
    place[last] = value
    return document


def rate(value: float) -> dict[str, Any]:
    """Return a rate as ``metrics.Rate`` writes it."""
    return {"value": value, "interval": [value - 0.1, value + 0.1], "samples": 100}


def result_of(entry: MatrixEntry) -> dict[str, Any]:
    """Return accuracy 0.9 and attack success 0.8, 0.85, ... by seed. Only the scan finds the attack."""
    planted = not entry.cell.is_clean
    if entry.cell.kind == "detect":
        score = entry.cell.seed + (10 if planted and entry.cell.method == "patch-scan" else 0)
        target = 0 if planted and entry.cell.seed else 1
        return {"score": float(score), "target": target, "planted_target": 0 if planted else None, "status": "ok"}
    rates = {"clean_accuracy": rate(0.9)}
    if planted:
        rates |= {
            "attack_success": rate(0.8 + 0.05 * entry.cell.seed),
            "control": rate(0.01),
            "robust_accuracy": rate(0.1),
        }
    return {**rates, "repair_seconds": 2.0}
