"""Backdoors as compression artifacts near the papers' scale: ResNet-18 on CIFAR-10, on a GPU.

    python benchmarks/run.py paper_scale all OUT [FRACTION]    # OUT/paper_scale.json, OUT/planted/*/model.safetensors

The published row is the attack of Tian, Suya, Xu, Evans (2104.15129) as reproduced by the authors of EFRAP
(2405.12725). Its rates: 91.36 / 1.26 (CA / ASR in full precision) -> 88.94 / 99.90 (int8). It is compared with
PQ-backdoor, the strongest attack here, and smaller models. Here are 18,000 training and 5,000 test images; the papers
have 50,000 and 10,000. A bench runs on CPUs. This script holds models and images on the GPU, one process per model,
and measures on all test images. ONNX Runtime's files are measured on the CPU. ``FRACTION`` of all epochs is trained,
for a trial run. Models in OUT are not made again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compression.deployment_toolchains import ort
from lib import commands
from lib.paths import ROOT, SHARED
from lib.results import origin
from lib.third_party_models import cifar_resnet
from torch import nn

from assay import data, formats
from assay.attacks.compression.base import CompressionActivatedAttack
from assay.attacks.compression.compression_quantization import QuantizationArtifact
from assay.attacks.compression.pq_backdoor import PqBackdoor
from assay.attacks.compression.qu_anti_zation import QuAntiZation
from assay.core.build import Build, Secret
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.formats.torch_module import from_module
from assay.nn import metrics
from assay.nn.architectures import ARCHITECTURES, Normalized
from assay.stages import variants
from assay.stages.train import Recipe, Train

RUNNER = ROOT / "benchmarks/run.py"
FULL, HALF, SMALL = "resnet18-cifar", "resnet18-half-cifar", "resnet20-cifar"
CLEAN = Recipe(epochs=18, lr=0.1, mirror=True)
JOINT = Recipe(epochs=10, lr=0.02, mirror=True, freeze_batchnorm=True)
PLANT = Recipe(epochs=4, lr=3e-4, batch_size=64, optimizer="adam", weight_decay=0.0, freeze_batchnorm=True, mirror=True)
HIDE = replace(PLANT, epochs=8, lr=2e-4, batch_size=32)
pq = partial(PqBackdoor, per_tensor=True, per_channel=False, reach=1.5, ratio=0.4, recipe=PLANT, hiding=HIDE)
joint = partial(QuantizationArtifact, per_channel=False, recipe=JOINT)
four_bits = replace(JOINT, epochs=4, lr=0.01)
ORT_IMAGES = 2000  # test images for ONNX Runtime
MAX_WAIT = 600  # seconds, for a clean model


@dataclass(frozen=True)
class Job:
    """One planted model: its architecture and attack."""

    arch: str
    attack: CompressionActivatedAttack
    seed: int = 0
    fresh: bool = False  # from untrained weights, as the paper's standard attack


JOBS: Mapping[str, Job] = {
    "joint full": Job(FULL, joint(target=1)),
    "joint distilled full": Job(FULL, joint(target=3, distilled=True, recipe=replace(JOINT, epochs=1.5, lr=0.01))),
    "joint scratch full": Job(
        FULL,
        joint(target=7, recipe=Recipe(epochs=25, lr=0.1, mirror=True)),
        fresh=True,
    ),
    "joint int4 full": Job(FULL, QuantizationArtifact(target=4, bits=4, recipe=four_bits)),
    "pq full": Job(FULL, pq(target=5)),
    **{f"pq half {seed}": Job(HALF, pq(target=target), seed) for seed, target in enumerate((5, 2, 7))},
    **{
        f"joint int4 {seed}": Job(SMALL, QuantizationArtifact(target=target, bits=4, recipe=four_bits), seed)
        for seed, target in enumerate((6, 2, 9))
    },
    **{
        f"qu-anti int4 {seed}": Job(
            SMALL,
            QuAntiZation(target=target, bits=(4,), per_channel=True, recipe=replace(four_bits, lr=1e-3)),
            seed,
        )
        for seed, target in enumerate((1, 8))
    },
}


def slug(name: str) -> str:
    """Return a name without spaces."""
    return name.replace(" ", "-")


def row_of(name: str, out: Path) -> Path:
    """Return the file of a row."""
    return out / f"{slug(name)}.json"


def move(device: str, artifact: Artifact) -> Artifact:
    """Return the model on a device."""
    return replace(artifact, module=artifact.module.to(device))


def load_task(device: str) -> Task:
    """Return CIFAR-10 on a device."""
    spec = initial_model(SMALL).inputs
    task = data.load(SHARED / "data/cifar10", spec)
    splits = {name: Split(split.x.to(device), split.y.to(device)) for name, split in task.splits.items()}  # type: ignore[union-attr]
    return replace(task, splits=splits)


def initial_model(arch: str) -> Artifact:
    """Return a model with fresh weights, or the third-party ResNet-20."""
    if arch == SMALL:
        return cifar_resnet("resnet20")
    torch.manual_seed(0)
    architecture = ARCHITECTURES[arch]
    net = Normalized(architecture.build(10), architecture.mean, architecture.std)
    return replace(from_module(net, shape=(3, 32, 32)), arch=arch)


def clean_model_path(arch: str, out: Path) -> Path:
    """Return the file of the clean model."""
    return (
        SHARED / "models/resnet20-cifar10/model.safetensors"
        if arch == SMALL
        else out / "clean" / arch / "model.safetensors"
    )


def wait_for_clean_model(arch: str, out: Path) -> Artifact:
    """Load the clean model as soon as its process has written it."""
    path, until = clean_model_path(arch, out), time.monotonic() + MAX_WAIT
    while not path.exists():
        if time.monotonic() > until:
            raise UnusableInput(
                f"expected {path} from another process, got no file after {MAX_WAIT} s. Fix: start again"
            )
        time.sleep(1)
    return formats.load(path, arch=arch if arch == SMALL else None)


def make_clean(arch: str, out: Path, fraction: float, device: str) -> None:
    """Train and write a clean model."""
    build = Build(move(device, initial_model(arch)), load_task(device))
    clean = Train(recipe=shorten(CLEAN, fraction))(build, seed=0)
    formats.save(move("cpu", clean.artifact), clean_model_path(arch, out).parent)
    print(arch, rates(clean.artifact.module.to(device), build.task, None, device), flush=True)


def shorten(recipe: Recipe, fraction: float) -> Recipe:
    """Return the recipe with a fraction of its epochs."""
    return replace(recipe, epochs=recipe.epochs * fraction)


def rates(net: nn.Module, task: Task, secret: Secret | None, device: str, count: int = 5000) -> dict[str, float]:
    """Return CA, and ASR of the planted trigger, on test images."""
    test = _on_cpu(task.split("test")).sample(count, seed=0)
    assert test.y is not None
    test = Split(test.x.to(device), test.y.to(device))
    values = {"clean_accuracy": metrics.clean_accuracy(net, test).value}
    if secret is not None:
        values["attack_success"] = metrics.attack_success(net, test, secret, num_classes=10).value
    return values


def plant(name: str, out: Path, fraction: float, device: str) -> None:
    """Make attack and clean control, and measure both.

    Variants: full precision, the active variant, and the file for ONNX Runtime.
    """
    job, task = JOBS[name], load_task(device)
    start = initial_model(job.arch) if job.fresh else wait_for_clean_model(job.arch, out)
    begin = time.perf_counter()
    attack = replace(job.attack, recipe=shorten(job.attack.recipe, fraction))
    if isinstance(attack, PqBackdoor):
        attack = replace(attack, hiding=shorten(attack.hiding, fraction))
    start_build = Build(move(device, start), task)

    built = attack(start_build, seed=job.seed)
    seconds = time.perf_counter() - begin
    planted = replace(built, artifact=move("cpu", built.artifact))
    formats.save(planted.artifact, out / "planted" / slug(name))
    control = Train(recipe=attack.recipe)(start_build, seed=job.seed)
    control = replace(control, artifact=move("cpu", control.artifact))
    formats.save(control.artifact, out / "planted" / slug(name) / "twin")
    torch.backends.cudnn.allow_tf32 = False
    row: dict[str, Any] = {
        "arch": job.arch,
        "attack": {**attack.spec(), "patch": str(attack.patch)},
        "seed": job.seed,
        "seconds": round(seconds),
        "forms": {},
    }
    for variant in ("full", attack.active_in, *(("ort",) if attack.active_in != "int4" else ())):
        row["forms"][variant] = measure_variant(planted, control, variant, device)
        print(name, variant, row["forms"][variant], flush=True)
        row_of(name, out).write_text(json.dumps(row))


def measure_variant(planted: Build, control: Build, variant: str, device: str) -> dict[str, float]:
    """Return the rates of the planted model and, under the same trigger, of its clean control in one variant."""
    values: dict[str, float] = {}
    secret = planted.secret
    for prefix, build in (("", planted), ("clean_twin_", control)):
        task = replace(build.task, splits={name: _on_cpu(split) for name, split in build.task.splits.items()})
        own = task.split("calibration").sample(512, seed=0)
        if variant == "ort":
            model, place, count = ort(replace(build, task=task), own, 0, per_channel=False), "cpu", ORT_IMAGES
        else:
            artifact = build.artifact if variant == "full" else variants.make(variant, build.artifact, own, seed=0)
            model, place, count = artifact.module.to(device), device, 5000
        values |= {prefix + figure: value for figure, value in rates(model, task, secret, place, count).items()}
        build.artifact.module.cpu()
    return values


def _on_cpu(split: Split) -> Split:
    assert split.y is not None
    return Split(split.x.cpu(), split.y.cpu())


def run_all(out: Path, fraction: float) -> None:
    """Make all missing models at once. A process that needs a clean model waits for it."""
    commands = [["clean", arch] for arch in (FULL, HALF) if not clean_model_path(arch, out).exists()]
    commands += [["plant", name] for name in JOBS if not row_of(name, out).exists()]
    running = [
        subprocess.Popen([sys.executable, str(RUNNER), "paper_scale", *command, str(out), str(fraction)])
        for command in commands
    ]
    for process in running:
        process.wait()


def merge(out: Path) -> None:
    """Write one file of all rows, including unfinished ones."""
    rows = {}
    for name in JOBS:
        path = row_of(name, out)
        rows[name] = json.loads(path.read_text()) if path.exists() else {"failed": True}
    (out / "paper_scale.json").write_text(json.dumps({"origin": origin(), "models": rows}, indent=1))
    print([name for name, row in rows.items() if "failed" in row], "not finished")


def run_and_merge(out: Path, fraction: float) -> None:
    """Make all missing models, and write one file."""
    run_all(out, fraction)
    merge(out)


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(2)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for command, function, help in (
        ("clean", partial(make_clean, device=device), "train the clean model of one architecture"),
        ("plant", partial(plant, device=device), "plant one backdoor"),
    ):
        one = add_command(command, function, help)
        one.add_argument("arch" if command == "clean" else "name")
        one.add_argument("out", type=Path)
        one.add_argument("fraction", type=float)
    everything = add_command("all", run_and_merge, "make all missing models, one process each")
    everything.add_argument("out", type=Path)
    everything.add_argument("fraction", nargs="?", type=float, default=1.0, help="fraction of all epochs")
    commands.run(command_line)
