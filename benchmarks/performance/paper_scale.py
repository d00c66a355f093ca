"""Backdoors as compression artifacts at the papers' scale, as far as the data goes: ResNet-18 on CIFAR-10, on a GPU.

    python benchmarks/run.py paper_scale OUT [SHARE]    # -> OUT/paper_scale.json and OUT/planted/*/model.safetensors

The published row is that of the attack of Tian, Suya, Xu, Evans (2104.15129) as the authors of EFRAP (2405.12725)
reproduced it: 91.36 / 1.26 (CA / ASR in full precision) -> 88.94 / 99.90 (int8). Beside it PQ-backdoor, which goes
furthest here, and smaller nets. There are 18,000 pictures to train on and 5,000 to test with; the papers have 50,000
and 10,000. A bench runs on CPUs; this script holds nets and pictures on the GPU, one process a model, and measures on
all test pictures; ONNX Runtime's files on the CPU beside it. ``SHARE`` of all epochs is trained, to see that everything
runs. A model that is in OUT is not made again.
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
PICTURES = 2000  # for ONNX Runtime
LONGEST_WAIT = 600  # seconds, for a clean net


@dataclass(frozen=True)
class Job:
    """One planted model: from which clean net, by which attack."""

    arch: str
    attack: CompressionActivatedAttack
    seed: int = 0
    fresh: bool = False  # from nothing, as the paper's standard attack


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
    return name.replace(" ", "-")


def row_of(name: str, out: Path) -> Path:
    return out / f"{slug(name)}.json"


def on(device: str, artifact: Artifact) -> Artifact:
    return replace(artifact, module=artifact.module.to(device))


def pictures(device: str) -> Task:
    spec = started(SMALL).inputs
    task = data.load(SHARED / "data/cifar10", spec)
    splits = {name: Split(split.x.to(device), split.y.to(device)) for name, split in task.splits.items()}  # type: ignore[union-attr]
    return replace(task, splits=splits)


def started(arch: str) -> Artifact:
    """Fresh weights; of the small net other people's."""
    if arch == SMALL:
        return cifar_resnet("resnet20")
    torch.manual_seed(0)
    known = ARCHITECTURES[arch]
    net = Normalized(known.build(10), known.mean, known.std)
    return replace(from_module(net, shape=(3, 32, 32)), arch=arch)


def clean_net(arch: str, out: Path) -> Path:
    return (
        SHARED / "models/resnet20-cifar10/model.safetensors"
        if arch == SMALL
        else out / "clean" / arch / "model.safetensors"
    )


def waited_for(arch: str, out: Path) -> Artifact:
    path, until = clean_net(arch, out), time.monotonic() + LONGEST_WAIT
    while not path.exists():
        if time.monotonic() > until:
            raise UnusableInput(f"expected {path}, which another process was to make; it is not there")
        time.sleep(1)
    return formats.load(path, arch=arch if arch == SMALL else None)


def make_clean(arch: str, out: Path, share: float, device: str) -> None:
    build = Build(on(device, started(arch)), pictures(device))
    made = Train(recipe=shortened(CLEAN, share))(build, seed=0)
    formats.save(on("cpu", made.artifact), clean_net(arch, out).parent)
    print(arch, rates(made.artifact.module.to(device), build.task, None, device), flush=True)


def shortened(recipe: Recipe, share: float) -> Recipe:
    return replace(recipe, epochs=recipe.epochs * share)


def rates(net: nn.Module, task: Task, secret: Secret | None, device: str, count: int = 5000) -> dict[str, float]:
    """CA, and ASR of what was planted, on test pictures."""
    test = _on_cpu(task.split("test")).sample(count, seed=0)
    assert test.y is not None
    test = Split(test.x.to(device), test.y.to(device))
    found = {"clean_accuracy": metrics.clean_accuracy(net, test).value}
    if secret is not None:
        found["attack_success"] = metrics.attack_success(net, test, secret, num_classes=10).value
    return found


def plant(name: str, out: Path, share: float, device: str) -> None:
    """Attack and clean twin, in full precision, in the form that wakes, and as a file for ONNX Runtime."""
    job, task = JOBS[name], pictures(device)
    start = started(job.arch) if job.fresh else waited_for(job.arch, out)
    begin = time.perf_counter()
    attack = replace(job.attack, recipe=shortened(job.attack.recipe, share))
    if isinstance(attack, PqBackdoor):
        attack = replace(attack, hiding=shortened(attack.hiding, share))
    given = Build(on(device, start), task)

    built = attack(given, seed=job.seed)
    seconds = time.perf_counter() - begin
    planted = replace(built, artifact=on("cpu", built.artifact))
    formats.save(planted.artifact, out / "planted" / slug(name))
    twin = Train(recipe=attack.recipe)(given, seed=job.seed)
    twin = replace(twin, artifact=on("cpu", twin.artifact))
    formats.save(twin.artifact, out / "planted" / slug(name) / "twin")
    torch.backends.cudnn.allow_tf32 = False
    row: dict[str, Any] = {
        "arch": job.arch,
        "attack": {**attack.spec(), "patch": str(attack.patch)},
        "seed": job.seed,
        "seconds": round(seconds),
        "forms": {},
    }
    for form in ("full", attack.active_in, *(("ort",) if attack.active_in != "int4" else ())):
        row["forms"][form] = both(planted, twin, form, device)
        print(name, form, row["forms"][form], flush=True)
        row_of(name, out).write_text(json.dumps(row))


def both(planted: Build, twin: Build, form: str, device: str) -> dict[str, float]:
    """The rates of the planted net and, with the same trigger, of its clean twin in one form."""
    found, secret = {}, planted.secret
    for prefix, build in (("", planted), ("clean_twin_", twin)):
        task = replace(build.task, splits={name: _on_cpu(split) for name, split in build.task.splits.items()})
        own = task.split("calibration").sample(512, seed=0)
        if form == "ort":
            net, where, count = ort(replace(build, task=task), own, 0, per_channel=False), "cpu", PICTURES
        else:
            made = build.artifact if form == "full" else variants.make(form, build.artifact, own, seed=0)
            net, where, count = made.module.to(device), device, 5000
        found |= {prefix + figure: value for figure, value in rates(net, task, secret, where, count).items()}
        build.artifact.module.cpu()
    return found


def _on_cpu(split: Split) -> Split:
    assert split.y is not None
    return Split(split.x.cpu(), split.y.cpu())


def everything(out: Path, share: str) -> None:
    """All at once that is not there yet: who needs a clean net that is still trained waits for it."""
    commands = [["clean", arch] for arch in (FULL, HALF) if not clean_net(arch, out).exists()]
    commands += [["plant", name] for name in JOBS if not row_of(name, out).exists()]
    running = [
        subprocess.Popen([sys.executable, str(RUNNER), "paper_scale", *command, str(out), share])
        for command in commands
    ]
    for process in running:
        process.wait()


def merge(out: Path) -> None:
    """One file of all rows, of those too that were not finished."""
    rows = {}
    for name in JOBS:
        path = row_of(name, out)
        rows[name] = json.loads(path.read_text()) if path.exists() else {"failed": True}
    (out / "paper_scale.json").write_text(json.dumps({"origin": origin(), "models": rows}, indent=1))
    print([name for name, row in rows.items() if "failed" in row], "not finished")


if __name__ == "__main__":
    torch.set_num_threads(2)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    if sys.argv[1] in ("clean", "plant"):
        what, which, folder, part = sys.argv[1:]
        (make_clean if what == "clean" else plant)(which, Path(folder), float(part), where)
    else:
        everything(Path(sys.argv[1]), sys.argv[2] if sys.argv[2:] else "1")
        merge(Path(sys.argv[1]))
