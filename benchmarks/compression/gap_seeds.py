"""Dependence of compression-gap on its seed: three backdoored models and a clean one, each in its variant.

    python benchmarks/run.py gap_seeds make DIR   # plants the backdoors, about 30 minutes; resumable
    python benchmarks/run.py gap_seeds run DIR    # -> benchmarks/results/gap_seeds.json; resumable

The backdoors are those of ``assay plant`` in a third-party ResNet-20, from 20,000 images. The seeds are those of the
search.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from lib import commands
from lib.paths import SHARED
from lib.results import ResumableRows, Row

from assay import formats
from assay.auditing.describe import describe
from assay.auditing.inputs import clean_samples
from assay.auditing.variant_maker import VariantMaker
from assay.core.finding import Outcome
from assay.detectors import CompressionGap
from assay.detectors.budget import Budget

MODEL, ARCH, DATA = SHARED / "models/resnet20-cifar10/model.safetensors", "resnet20-cifar", SHARED / "data/cifar10"
SEEDS = range(4)
CLEAN_VARIANTS = ("int8", "int8-tensor", "prune-2:4")


class Sleeper(NamedTuple):
    """A backdoor that one variant activates."""

    variant: str
    target: int
    attack: str
    settings: str  # of ``assay plant``


SLEEPERS: Mapping[str, Sleeper] = {
    "sparse24": Sleeper(
        "prune-2:4",
        4,
        "silent-until-sparse",
        "recipe.epochs=1.2 recipe.lr=0.02 hiding.epochs=1.8 hiding.lr=0.02 hiding.mirror=true",
    ),
    "pqtensor": Sleeper(
        "int8-tensor",
        2,
        "pq-backdoor",
        "per_tensor=true per_channel=false reach=2 recipe.epochs=4 recipe.batch_size=64 hiding.epochs=1.2 "
        "hiding.lr=0.0002 hiding.batch_size=32 hiding.optimizer=adam hiding.mirror=true",
    ),
    "pruned": Sleeper(
        "filters-30",
        9,
        "silent-until-pruned",
        "recipe.epochs=5 recipe.lr=0.002 recipe.optimizer=adam recipe.mirror=true recipe.freeze_batchnorm=true "
        "hiding.epochs=5 hiding.lr=0.001 hiding.optimizer=adam hiding.weight_decay=0 hiding.mirror=true "
        "hiding.freeze_batchnorm=true",
    ),
}


def make(directory: Path) -> None:
    """Plant the missing backdoors."""
    directory.mkdir(parents=True, exist_ok=True)
    program = str(Path(sys.executable).parent / "assay")
    source = ("--model", str(MODEL), "--arch", ARCH, "--data", str(DATA), "--limit", "20000")
    for name, sleeper in SLEEPERS.items():
        if not (directory / name).exists():
            settings = [word for setting in sleeper.settings.split() for word in ("-o", setting)]
            target = ("-o", f"target={sleeper.target}", "--out", str(directory / name))
            subprocess.run([program, "plant", sleeper.attack, *source, *settings, *target], check=True)


def measure(path: Path, arch: str | None, variant: str, target: int | None) -> Row:
    """Return the scores of the detector on one variant of a model, one for each seed.

    Args:
        path: The model.
        arch: Its architecture; None: the model names it.
        variant: Name of the variant.
        target: Target class of the planted backdoor; None: the model is clean.
    """
    artifact = formats.load(path, arch=arch)
    samples = clean_samples(DATA, artifact, seed=0)
    made = VariantMaker(describe(artifact, samples, None, seed=0), 0, Budget()).make(variant)
    assert made.tested is not None
    findings = [CompressionGap()(made.tested, samples.split, seed=seed) for seed in SEEDS]
    assert all(finding.outcome is Outcome.SCORED for finding in findings)
    return {
        "variant": variant,
        "target": target,
        "scores": [finding.score for finding in findings],
        "targets": [finding.target for finding in findings],
        "success": [finding.evidence.numbers["success"] for finding in findings],
        "seconds": [round(finding.seconds, 1) for finding in findings],
    }


def run(directory: Path) -> None:
    """Measure the missing models."""
    rows = ResumableRows("gap_seeds")
    clean = {f"clean, {variant}": (MODEL, ARCH, variant, None) for variant in CLEAN_VARIANTS}
    sleepers = {name: (directory / name, None, sleeper.variant, sleeper.target) for name, sleeper in SLEEPERS.items()}
    cases = {**sleepers, **clean}
    for name in rows.missing(cases):
        rows.add(name, measure(*cases[name]))


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    add_command("make", make, "plant the missing backdoors").add_argument("directory", type=Path)
    add_command("run", run, "measure the missing models").add_argument("directory", type=Path)
    commands.run(command_line)
