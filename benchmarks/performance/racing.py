"""Raced tests compared with full ones: passes through the model, scores and targets.

    python benchmarks/run.py racing make DIR                  # eight backdoored or clean models on drawn signs
    python benchmarks/run.py racing run DATA FOLDER...        # -> benchmarks/results/racing.json, resumable
    python benchmarks/run.py racing references NETS NUMBER... # the same for models of ``null_images compare``

A folder holds NAME/model.safetensors, as those of ``same_verdicts make`` and ``cifar_models``. The models of ``make``
have sinusoids, small patches and 43 classes. A pass is one image through the model, forward, or forward and backward
for max-margin. All runs are in float32.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lib import commands
from lib.results import ResumableRows
from reference_models.null_images import retrain
from torch import nn

from assay import data, formats
from assay.attacks import BadNets
from assay.attacks.poisoning.base import DataPoisoning
from assay.auditing.inputs import clean_samples
from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.model import Artifact
from assay.detectors import MaxMargin, PatchScan, WaveScan
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.margin_units import in_margin_units
from assay.detectors.scans.base import Scan
from assay.detectors.scans.race import Race, Round
from assay.formats.untrained import inputs_of, untrained_model
from assay.nn.modes import eval_mode
from assay.nn.precision import OVERRIDE
from assay.nn.unit_margin import UnitMargin
from assay.stages.train import Recipe, Train
from assay.triggers import Additive, Patch

ARCH = "resnet8-cifar"
RECIPE = Recipe(epochs=5)


def full(samples: int) -> Race:
    """Return the race of one round: all triggers on all samples."""
    return (Round(samples=samples),)


# Each test as shipped, and without a race.
TESTS: dict[str, tuple[Detector, Detector]] = {
    "patch-scan": (PatchScan(), PatchScan(coarse=full(8), fine=full(8))),
    "wave-scan": (WaveScan(), WaveScan(rounds=full(10))),
    "max-margin": (MaxMargin(), MaxMargin(leading=50)),
}


@dataclass(frozen=True, kw_only=True)
class Sinusoid(DataPoisoning):
    """A plane wave added to some training images (Barni, Kallas, Tondi, ICIP 2019), for images of 32 x 32 pixels."""

    name: ClassVar[str] = "sinusoid"
    across: int = 0  # periods
    down: int = 0  # periods
    amplitude: float = 20 / 255
    phase: float = 0.0  # in periods

    def trigger(self) -> Additive:
        row, column = torch.arange(32)[:, None] / 32, torch.arange(32) / 32
        wave = torch.sin(2 * math.pi * (self.down * row + self.across * column + self.phase))
        return Additive.of(self.amplitude * wave.expand(3, 32, 32))


# name: (classes, seed, attack; None for a clean model)
MODELS: dict[str, tuple[int, int, DataPoisoning | None]] = {
    "sin-signs-6": (10, 11, Sinusoid(across=6, target=4, recipe=RECIPE)),
    "sin-signs-diag": (10, 12, Sinusoid(across=3, down=5, target=7, amplitude=16 / 255, recipe=RECIPE)),
    "sin-signs-weak": (10, 13, Sinusoid(down=9, phase=0.2, target=2, amplitude=10 / 255, recipe=RECIPE)),
    "patch-signs-2": (10, 14, BadNets(target=8, patch=Patch(size=2, place=(9, 17), color="blue"), recipe=RECIPE)),
    "patch-signs-weak": (
        10,
        15,
        BadNets(target=1, patch=Patch(size=3, place=(20, 3), color="yellow"), ratio=0.02, recipe=RECIPE),
    ),
    "clean-43": (43, 31, None),
    "patch-43": (43, 32, BadNets(target=20, patch=Patch(size=3, color="red"), recipe=RECIPE)),
    "sin-43": (43, 33, Sinusoid(across=6, target=30, recipe=RECIPE)),
}


def make(folder: Path) -> None:
    """Make the missing models, in one folder for each number of classes."""
    for name, (classes, seed, attack) in MODELS.items():
        path = folder / f"signs-{classes}" / name
        if path.exists():
            continue
        task = data.load(f"signs:{classes}", inputs_of(ARCH), seed=0)
        build = Build(untrained_model(ARCH, classes, class_names=task.class_names, seed=seed), task)
        stage = Train(recipe=RECIPE) if attack is None else attack
        formats.save(stage(build, seed=seed).artifact, path)
        print(name, flush=True)


@contextmanager
def counted_passes() -> Iterator[list[int]]:
    """Count the images that pass through a model in margin units, in the last element of the list."""
    passes = [0]

    def count(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, UnitMargin):
            passes[-1] += len(arguments[0])

    handle = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def measure(artifact: Artifact, clean: Split) -> dict[str, Any]:
    """Return passes, score and target of each test, raced and full."""
    rows: dict[str, Any] = {"classes": artifact.num_classes}
    with eval_mode(artifact.module):
        scaled = in_margin_units(artifact, clean)
        Scan(scaled, clean, Budget(), samples=1)  # predicts the clean samples once for all scans
        for name, detectors in TESTS.items():
            rows[name] = {}
            for kind, detector in zip(("raced", "full"), detectors, strict=True):
                with counted_passes() as passes:
                    finding = detector.run(scaled, clean, seed=0, budget=Budget(), progress=lambda fraction: None)
                rows[name][kind] = {"passes": passes[-1], "score": finding.score, "target": finding.target}
    return rows


def run(source: str, folders: list[Path]) -> None:
    """Measure the models of folders without a row."""
    task: Task | None = None
    kept = ResumableRows("racing")
    paths = {path.parent.name: path for folder in folders for path in sorted(folder.glob("*/model.safetensors"))}
    for name in kept.missing(paths):
        artifact = formats.load(paths[name])
        task = task or data.load(source, artifact.inputs, limit=2048, seed=0)
        kept.add(name, measure(artifact, clean_samples(task, artifact, seed=0).split))


def references(folder: Path, numbers: list[int]) -> None:
    """Measure clean reference models without a row."""
    kept = ResumableRows("racing")
    names = {f"reference {number:03d}": number for number in numbers}
    for name in kept.missing(names):
        artifact, task = retrain(names[name], folder)
        kept.add(name, measure(artifact, clean_samples(task, artifact, seed=names[name]).split))


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    os.environ[OVERRIDE] = "float32"
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    add_command("make", make, "make the models on drawn signs").add_argument("folder", type=Path)
    run_parser = add_command("run", run, "measure the models of folders; resumable")
    run_parser.add_argument("source", metavar="DATA")
    run_parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    references_parser = add_command("references", references, "measure clean reference models; resumable")
    references_parser.add_argument("folder", type=Path, metavar="NETS")
    references_parser.add_argument("numbers", type=int, nargs="+", metavar="NUMBER")
    commands.run(command_line)
