"""Separation of poisoned and clean encoders by embedding-drift, with a trusted encoder.

The encoders of ``benchmarks/run.py encoders`` are compared with two trusted ones: the third-party model of their
origin, and one of another depth. Clean encoders that are their own origin (score 0) count for the other depth only.

    python benchmarks/run.py encoders run DIR
    python benchmarks/run.py drift DIR              # -> benchmarks/results/drift.json
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from lib import commands
from lib.paths import SHARED
from lib.results import save_result
from lib.statistics import auc
from lib.third_party_models import cifar_resnet

from assay import formats
from assay.auditing.inputs import clean_samples
from assay.core.model import Artifact
from assay.data import load as load_data
from assay.detectors import EmbeddingDrift
from assay.detectors.encoder import cluster_probe
from encoders.encoders import ROWS, SPEC, Row, measured_row

PAIRS = ("its origin", "another depth")


def trusted_for(row: Row, pair: str) -> Artifact | None:
    """Return the trusted encoder for a row; None if that would be the encoder itself."""
    if pair == PAIRS[0]:
        return cifar_resnet(row.net, features=True) if row.attack or row.tuned else None
    return cifar_resnet("resnet20" if row.net == "resnet56" else "resnet56", features=True)


def score(path: Path, row: Row, trusted: Artifact) -> dict[str, float | int | str | None]:
    """Run the detector with the samples that an audit takes."""
    artifact = formats.load(path)
    task = load_data(str(SHARED / "data" / row.data), SPEC, limit=2048, seed=row.seed)
    clean = clean_samples(task, artifact, seed=row.seed).split
    probed, clean = cluster_probe.probe_encoder(artifact, clean, seed=row.seed)
    finding = EmbeddingDrift()(replace(probed, reference=trusted), clean, seed=row.seed)
    return {"score": finding.score, "seconds": round(finding.seconds, 1), **finding.evidence.numbers}


def main(folder: Path) -> None:
    """Compare all encoders, and write the result file."""
    rows: dict[str, dict] = {}
    for name, row in ROWS.items():
        if (measured := measured_row(name, folder)) is None:
            continue
        rows[name] = {"poisoned": measured["poisoned"]}
        for pair in PAIRS:
            if (trusted := trusted_for(row, pair)) is not None:
                rows[name][pair] = score(folder / name, row, trusted)
        print(name, {pair: rows[name][pair]["score"] for pair in PAIRS if pair in rows[name]}, flush=True)
    areas = {}
    for pair in PAIRS:
        poisoned, clean = (
            [row[pair]["score"] for row in rows.values() if pair in row and row["poisoned"] is kind]
            for kind in (True, False)
        )
        areas[pair] = {"auc": auc(poisoned, clean), "highest_clean": max(clean), "poisoned": len(poisoned)}
        areas[pair] |= {"clean": len(clean), "above_all_clean": sum(score > max(clean) for score in poisoned)}
        print(pair, areas[pair])
    save_result("drift", {"summary": areas, "encoders": rows, "not_run": [name for name in ROWS if name not in rows]})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("folder", type=Path)
    main(command_line.parse_args().folder)
