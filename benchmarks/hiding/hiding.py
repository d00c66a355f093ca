"""Backdoors hidden behind the way of asking, audited, and the same tricks on clean models.

python benchmarks/run.py hiding build FOLDER                    # the files, and index.json with success rates
python benchmarks/run.py hiding run FOLDER [--shard 0/2]        # audits; a repeated run completes the rows
python benchmarks/run.py hiding table FOLDER                    # -> benchmarks/results/hiding.json
"""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib import commands
from lib.hiding_models import TRICKS, Built, Models, Trick, build, measure
from lib.paths import SHARED
from lib.results import RowFiles, save_result

from assay import data
from assay.auditing.api import audit
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.finding import Outcome
from assay.core.model import ImageSpec
from assay.core.result import Audit
from assay.formats.torch_module import from_module

SHAPE = (3, 32, 32)
SAMPLES = 640  # test images in the audit's data; measurements use the images behind them


def names() -> list[str]:
    """Return the names of all rows: a trick and a format."""
    return [f"{trick.name}.{kind}" for trick in TRICKS for kind in trick.formats()]


def trick_of(name: str) -> tuple[Trick, str]:
    """Return the trick and the format of a row."""
    trick, _, kind = name.rpartition(".")
    return next(item for item in TRICKS if item.name == trick), kind


@cache
def cifar() -> Task:
    """Return CIFAR-10."""
    return data.load(SHARED / "data/cifar10", ImageSpec(SHAPE))


def build_all(directory: Path) -> None:
    """Write the ONNX files, the data of the audits, and ``index.json`` with the rates of every model."""
    directory.mkdir(parents=True, exist_ok=True)
    models, test = Models.of(directory, cifar()), cifar().split("test")
    x = (255 * test.x[:SAMPLES]).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez_compressed(directory / "data.npz", x=x, y=test.y[:SAMPLES].numpy())
    path = directory / "index.json"
    index: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in (name for name in names() if name not in index):
        trick, kind = trick_of(name)
        built = build(trick, kind, models, directory)
        index[name] = {"kind": trick.kind, "planted": trick.planted, **measure(built, *held_out())}
        print(name, index[name], flush=True)
        path.write_text(json.dumps(index, indent=1) + "\n")


def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    """Return test images and classes that the audits do not see."""
    test = cifar().split("test")
    return test.x[SAMPLES : SAMPLES + 600], test.y[SAMPLES : SAMPLES + 600]


def row_of(name: str, directory: Path) -> dict[str, Any]:
    """Build, measure and audit one model."""
    trick, kind = trick_of(name)
    built = build(trick, kind, Models.of(directory, cifar()), directory)
    row = {"kind": trick.kind, "variant": trick.variant, "format": kind, "planted": trick.planted}
    row |= measure(built, *held_out())
    start = time.perf_counter()
    try:
        row |= describe(run_audit(built))
    except UnusableInput as error:
        row |= {"verdict": "refused", "reason": str(error), "by": ""}
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def run_audit(built: Built) -> Audit:
    """Audit a model in full precision, as a user who knows nothing of the trick.

    The deployment check and the graph come first. If they decide the verdict, the searches cannot change it: a
    difference makes it inconclusive, and a proof makes it backdoored. Then the searches are left out.
    """
    first = audit_with(built, "graph")
    differs = first.deployment is not None and bool(first.deployment.differences)
    proven = any(finding.outcome is Outcome.PROVEN for finding in first.findings)
    return first if differs or proven else audit_with(built, None)


def audit_with(built: Built, detectors: str | None) -> Audit:
    """Audit a model with some detectors; None: the default ones."""
    split = cifar().split("test").take(torch.arange(SAMPLES))
    task = Task("cifar10", {"test": split}, cifar().class_names)
    if isinstance(built.source, Path):
        return audit(built.source, task, variant_names=("full",), detectors=detectors)
    return audit(from_module(built.source, shape=SHAPE), task, variant_names=("full",), detectors=detectors)


def describe(result: Audit) -> dict[str, Any]:
    """Return the entries of a row for one audit."""
    proofs = [finding.detector for finding in result.findings if finding.outcome is Outcome.PROVEN]
    return {
        "verdict": result.verdict,
        "reason": result.reason,
        "searched": len(result.findings) > 1,
        "by": "proof" if proofs else "scores" if result.verdict == "backdoored" else "",
        "proofs": proofs,
        "target": result.target,
        "findings": {f.detector: [f.outcome.value, f.score, f.p_value, f.reason[:200]] for f in result.findings},
    }


def run(directory: Path, shard: commands.Shard) -> None:
    """Audit the models of one shard."""
    directory.mkdir(parents=True, exist_ok=True)
    RowFiles(directory / "rows").complete(names(), lambda name: row_of(name, directory), shard)


def table(directory: Path) -> None:
    """Write the result file."""
    rows = RowFiles(directory / "rows").read(names())
    planted = [row for row in rows.values() if row["planted"]]
    clean = [row for row in rows.values() if not row["planted"]]
    save_result(
        "hiding",
        {
            "called clean": [sum(row["verdict"] == "clean" for row in planted), len(planted)],
            "accused by scores": [sum(row["by"] == "scores" for row in clean), len(clean)],
            "accused by proof": [sum(row["by"] == "proof" for row in clean), len(clean)],
            "models": rows,
        },
    )


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add = commands.subcommands(command_line)
    add("build", build_all, "write the models").add_argument("directory", type=Path)
    commands.add_run_and_table(add, run, table, "audit the models")
    commands.run(command_line)
