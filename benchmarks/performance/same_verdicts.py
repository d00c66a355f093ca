"""Audits of twenty models, to compare two versions of assay or two number formats.

    python benchmarks/run.py same_verdicts make DIR              # the twenty models, once: DIR/NAME/model.safetensors
    python benchmarks/run.py same_verdicts audit DIR FILE.json   # the audit of each, resumable
    python benchmarks/run.py same_verdicts compare NAME A.json B.json   # -> benchmarks/results/NAME.json

Nineteen ResNet-8s on synthetic road signs, as in the demo (ten clean, nine backdoored), and the third-party ResNet-20.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lib import commands
from lib.paths import SHARED
from lib.results import save_result

import assay
from assay import data, formats
from assay.attacks import BadNets, Blended
from assay.attacks.poisoning.base import DataPoisoning
from assay.core.build import Build
from assay.formats.untrained import inputs_of, untrained_model
from assay.stages.train import Recipe, Train
from assay.triggers import Blend, Patch

ARCH = "resnet8-cifar"
RESNET20 = "resnet20-cifar10"
CLASSES = 10
CLEAN_SEEDS = range(10)
POISON = Recipe(epochs=5)
ATTACKS: dict[str, DataPoisoning] = {
    "badnets-checker": BadNets(target=3, patch=Patch(size=4, color="checker"), recipe=POISON),
    "badnets-white": BadNets(target=0, patch=Patch(size=3), recipe=POISON),
    "badnets-random": BadNets(target=7, patch=Patch(size=4, color="random"), ratio=0.05, recipe=POISON),
    "badnets-red": BadNets(target=5, patch=Patch(size=3, color="red"), recipe=POISON),
    "badnets-center": BadNets(target=1, patch=Patch(size=4, place="center"), recipe=POISON),
    "blended-20": Blended(target=2, blend=Blend(alpha=0.2, seed=1), recipe=POISON),
    "blended-15": Blended(target=4, blend=Blend(alpha=0.15, seed=2), recipe=POISON),
    "blended-10": Blended(target=6, blend=Blend(alpha=0.1, seed=3), recipe=POISON),
    "blended-30": Blended(target=9, blend=Blend(alpha=0.3, seed=4), recipe=POISON),
}


def make(directory: Path) -> None:
    """Train the ten clean models and plant the nine backdoors in the first of them."""
    task = data.load(f"signs:{CLASSES}", inputs_of(ARCH), seed=0)
    builds: dict[str, Build] = {}
    for seed in CLEAN_SEEDS:
        start = untrained_model(ARCH, CLASSES, class_names=task.class_names, seed=seed)
        builds[f"clean-{seed}"] = Train(recipe=Recipe(epochs=3))(Build(start, task), seed=seed)
    for name, attack in ATTACKS.items():
        builds[name] = attack(builds["clean-0"], seed=0)
    for name, build in builds.items():
        formats.save(build.artifact, directory / name)
    (directory / RESNET20).mkdir(parents=True, exist_ok=True)
    shutil.copy(SHARED / f"models/{RESNET20}/model.safetensors", directory / RESNET20)


def audit(directory: Path, out: Path) -> None:
    """Audit each model with the default settings. The file is written after each model."""
    answers: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for path in sorted(directory.glob("*/model.safetensors")):
        name = path.parent.name
        if name in answers:
            continue
        third_party = name == RESNET20
        source = str(SHARED / "data/cifar10") if third_party else f"signs:{CLASSES}"
        start = time.perf_counter()
        result = assay.audit(str(path), source, arch="resnet20-cifar" if third_party else None)
        answers[name] = {
            "verdict": result.verdict,
            "statistic": result.statistic,
            "p_value": result.p_value,
            "target": result.target,
            "scores": {f"{f.variant}/{f.detector}": f.score for f in result.findings},
            "seconds": time.perf_counter() - start,
        }
        print(name, result.verdict, result.statistic, f"{answers[name]['seconds']:.0f} s", flush=True)
        out.write_text(json.dumps(answers, indent=1))


def compare(name: str, before: Path, after: Path) -> None:
    """Put the two answers to each model side by side, with the largest difference of a score and a statistic."""
    a, b = json.loads(before.read_text()), json.loads(after.read_text())
    models = sorted(a.keys() & b.keys())
    rows = {
        model: {
            "verdicts": [a[model]["verdict"], b[model]["verdict"]],
            "statistics": [a[model]["statistic"], b[model]["statistic"]],
            "targets": [a[model]["target"], b[model]["target"]],
            "seconds": [a[model]["seconds"], b[model]["seconds"]],
            "largest_score_difference": max(
                (
                    (abs(score - b[model]["scores"][test]), test)
                    for test, score in a[model]["scores"].items()
                    if score is not None and b[model]["scores"].get(test) is not None
                ),
                default=None,
            ),
        }
        for model in models
    }
    same = sum(row["verdicts"][0] == row["verdicts"][1] for row in rows.values())
    save_result(name, {"models": len(models), "same_verdict": same, "rows": rows})


def main() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    add_command("make", make, "make the twenty models").add_argument("directory", type=Path)
    audit_parser = add_command("audit", audit, "audit each model; resumable")
    audit_parser.add_argument("directory", type=Path)
    audit_parser.add_argument("out", type=Path)
    compare_parser = add_command("compare", compare, "write the result file of two audits")
    compare_parser.add_argument("name")
    compare_parser.add_argument("before", type=Path)
    compare_parser.add_argument("after", type=Path)
    commands.run(command_line)


def cli() -> None:
    """Run the command line."""
    main()
