"""Cost of a whole audit by number of classes, by size of the images, and by net: CPU seconds of one thread in float32.

    python benchmarks/run.py audit_scaling make DIR           # trains the models of the cases, resumable
    python benchmarks/run.py audit_scaling run DIR [NAME ...] # -> benchmarks/results/audit_scaling.json, resumable

The models are clean. Some are third-party weights, the others are trained here for a few epochs. MobileNetV2 gets
random crops of 20 photographs without labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lib import commands
from lib.paths import SHARED
from lib.results import ResumableRows
from lib.timed_audit import timed_audit
from PIL import Image

from assay import data as loaders
from assay import formats
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.model import ImageSpec
from assay.data.synthetic.signs import signs
from assay.formats.torch_module import from_module
from assay.nn.architectures import ARCHITECTURES, Normalized
from assay.stages.train import Recipe, Train

CIFAR = SHARED / "data/cifar10"
CROPS, CROP_SIZE, SHORT_SIDE = 200, 224, 256  # random crops of resized photographs


def trained(arch: str, task: Task, epochs: float, path: Path) -> None:
    """Train a model and write it."""
    architecture = ARCHITECTURES[arch]
    torch.manual_seed(0)
    net = Normalized(architecture.build(task.num_classes), architecture.mean, architecture.std)
    artifact = replace(from_module(net, shape=architecture.shape, class_names=task.class_names), arch=arch)
    formats.save(Train(recipe=Recipe(epochs=epochs))(Build(artifact, task), seed=0).artifact, path)


def trained_on_signs(classes: int, path: Path) -> None:
    """Train a ResNet-20 on signs with ``classes`` classes; fewer classes have more images each."""
    trained("resnet20-cifar", signs(classes), 8.0, path)


def trained_on_cifar(arch: str, path: Path) -> None:
    """Train a model on CIFAR-10 for two epochs."""
    trained(arch, loaders.load(CIFAR, ImageSpec((3, 32, 32)), limit=20_000), 2.0, path)


def photo_crops(folder: Path) -> None:
    """Write random crops of the photographs."""
    random, paths = np.random.default_rng(0), sorted((SHARED / "data/imagenet20").glob("*.jpg"))
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(CROPS):
        photo = Image.open(paths[number % len(paths)]).convert("RGB")
        ratio = SHORT_SIDE / min(photo.size)
        photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.BICUBIC)
        left, top = (int(random.integers(0, side - CROP_SIZE + 1)) for side in photo.size)
        photo.crop((left, top, left + CROP_SIZE, top + CROP_SIZE)).save(folder / f"{number:03d}.png")


SIGNS = (2, 10, 43, 100)  # classes
MAKERS: dict[str, Callable[[Path], None]] = {
    **{f"signs-{classes}": partial(trained_on_signs, classes) for classes in SIGNS},
    "resnet18": partial(trained_on_cifar, "resnet18-cifar"),
    "crops": photo_crops,
}


def options_of(name: str, folder: Path) -> tuple[str, ...]:
    """Return model and data of a case for ``assay audit``.

    Args:
        name: Name of the case.
        folder: Folder of the models that ``make`` wrote.
    """
    kind, _, detail = name.partition(" ")
    if kind == "classes":
        return (str(folder / f"signs-{detail}"), "--data", f"signs:{detail}")
    if kind == "pixels":
        model = SHARED / "models/resnet20-cifar10/model.safetensors"
        return (str(model), "--arch", "resnet20-cifar", "--data", str(CIFAR), "--shape", f"3,{detail},{detail}")
    if detail == "resnet18":
        return (str(folder / "resnet18"), "--data", str(CIFAR))
    if detail == "mobilenet_v2":
        return (str(SHARED / "models/mobilenet_v2-imagenet"), "--data", str(folder / "crops"), "--no-labels")
    model = SHARED / f"models/{detail}-cifar10/model.safetensors"
    return (str(model), "--arch", f"{detail}-cifar", "--data", str(CIFAR))


CASES = (
    *(f"classes {classes}" for classes in SIGNS),
    *(f"pixels {pixels}" for pixels in (32, 96)),
    *(f"net {net}" for net in ("resnet20", "resnet56", "resnet18", "mobilenet_v2")),
)


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
    rows = ResumableRows("audit_scaling")
    for name in names or list(rows.missing(CASES)):
        timed = timed_audit(model=options_of(name, directory))
        document = timed.document
        rows.add(
            name,
            {
                "cpu_seconds": round(timed.cpu_seconds, 1),
                "wall_seconds": round(timed.wall_seconds, 1),
                "peak_mib": round(timed.peak_mib),
                "verdict": document["verdict"],
                "samples": document["data"]["samples"],
                "by_test": {f"{f['variant']}/{f['detector']}": round(f["seconds"], 1) for f in document["findings"]},
            },
        )


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
