"""Cost of a whole audit by number of classes, by size of the images, and by net: CPU seconds of one thread in float32.

    python benchmarks/run.py audit_scaling make DIR           # trains the models of the cases, resumable
    python benchmarks/run.py audit_scaling run DIR [NAME ...] # -> benchmarks/results/audit_scaling.json, resumable

The models are clean. Some are third-party weights, the others are trained here for a few epochs. MobileNetV2 gets
random crops of 20 photographs without labels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lib import commands
from lib.paths import SHARED
from lib.photo_crops import photo_crops
from lib.results import ResumableRows
from lib.timed_audit import DATA, RESNET20, timed_audit
from PIL import Image

from assay import data as loaders
from assay import formats
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.model import ImageSpec
from assay.data.synthetic.signs import signs
from assay.formats.untrained import untrained_model
from assay.stages.train import Recipe, Train


def trained(arch: str, task: Task, epochs: float, path: Path) -> None:
    """Train a model and write it."""
    start = untrained_model(arch, task.num_classes, class_names=task.class_names)
    formats.save(Train(recipe=Recipe(epochs=epochs))(Build(start, task), seed=0).artifact, path)


def trained_on_signs(classes: int, path: Path) -> None:
    """Train a ResNet-20 on signs with ``classes`` classes; fewer classes have more images each."""
    trained("resnet20-cifar", signs(classes), 8.0, path)


def trained_on_cifar(arch: str, path: Path) -> None:
    """Train a model on CIFAR-10 for two epochs."""
    trained(arch, loaders.load(DATA, ImageSpec((3, 32, 32)), limit=20_000), 2.0, path)


def write_crops(folder: Path) -> None:
    """Write random crops of photographs."""
    folder.mkdir(parents=True)
    for number, (_, crop) in enumerate(photo_crops(224, 256, 10)):
        Image.fromarray(crop).save(folder / f"{number:03d}.png")


SIGNS = (2, 10, 43, 100)  # classes
MAKERS: dict[str, Callable[[Path], None]] = {
    **{f"signs-{classes}": partial(trained_on_signs, classes) for classes in SIGNS},
    "resnet18": partial(trained_on_cifar, "resnet18-cifar"),
    "crops": write_crops,
}


def cases(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return model and data for ``assay audit``, by name of the case.

    Args:
        folder: Folder of the models that ``make`` wrote.
    """
    cifar, models = ("--data", str(DATA)), SHARED / "models"
    return {
        **{f"classes {n}": (str(folder / f"signs-{n}"), "--data", f"signs:{n}") for n in SIGNS},
        "net resnet20": RESNET20,
        "pixels 96": (*RESNET20, "--shape", "3,96,96"),
        "net resnet56": (str(models / "resnet56-cifar10/model.safetensors"), "--arch", "resnet56-cifar", *cifar),
        "net resnet18": (str(folder / "resnet18"), *cifar),
        "net mobilenet_v2": (str(models / "mobilenet_v2-imagenet"), "--data", str(folder / "crops"), "--no-labels"),
    }


def make(directory: Path) -> None:
    """Train the missing models."""
    for name, maker in MAKERS.items():
        if not (directory / name).exists():
            maker(directory / name)
            print(name, flush=True)


def run(directory: Path, names: list[str]) -> None:
    """Audit the models of the missing cases.

    Args:
        directory: Folder of the models.
        names: The cases to run again; empty: all without a row.
    """
    rows, models = ResumableRows("audit_scaling"), cases(directory)
    for name in names or list(rows.missing(models)):
        rows.add(name, timed_audit(model=models[name]).figures())


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    add_command("make", make, "train the missing models").add_argument("directory", type=Path)
    command = add_command("run", run, "audit the models of the missing cases")
    command.add_argument("directory", type=Path)
    command.add_argument("names", nargs="*", metavar="NAME", help="cases to run again")
    commands.run(command_line)
