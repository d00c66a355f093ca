"""Growth of the audit's time with the number of classes: signs with 10, 100 and 1,000 classes, a target in each.

python benchmarks/run.py signs_scaling run DIR      # trains and audits, resumable by model
python benchmarks/run.py signs_scaling table DIR    # -> benchmarks/results/signs_scaling.json
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from lib import commands
from lib.audit_rows import audit_row, with_current_verdict
from lib.results import RowFiles, load_models, save_result

from assay import formats
from assay.attacks import BadNets
from assay.core.build import Build
from assay.core.dataset import Task
from assay.data.synthetic.signs import signs
from assay.formats.torch_module import from_module
from assay.nn.architectures import ARCHITECTURES, Normalized
from assay.nn.metrics import attack_success, clean_accuracy
from assay.stages.train import Recipe, Train
from assay.triggers import Patch

ARCH = "resnet20-cifar"
TARGETS = {10: 7, 100: 42, 1000: 731}


def plant(task: Task, target: int | None, recipe: Recipe) -> Build:
    """Return a model trained on signs, with BadNets if there is a target."""
    architecture = ARCHITECTURES[ARCH]
    torch.manual_seed(task.num_classes)
    net = Normalized(architecture.build(task.num_classes), architecture.mean, architecture.std)
    artifact = replace(from_module(net, shape=architecture.shape, class_names=task.class_names), arch=ARCH)
    if target is None:
        return Train(recipe=recipe)(Build(artifact, task), seed=1)
    return BadNets(patch=Patch(size=3), target=target, ratio=0.1, recipe=recipe)(Build(artifact, task), seed=1)


def measure(classes: int, backdoored: bool, recipe: Recipe, save_to: Path) -> dict[str, object]:
    """Train, save and audit one model."""
    task = signs(classes, per_class=600 if classes == 10 else None)
    build = plant(task, TARGETS[classes] if backdoored else None, recipe)
    formats.save(build.artifact, save_to)
    row: dict[str, object] = {"accuracy": clean_accuracy(build.artifact.module, task.split("test")).to_json()}
    if build.secret is not None:
        row["target"] = build.secret.target
        row["asr"] = attack_success(
            build.artifact.module, task.split("test"), build.secret, num_classes=classes
        ).to_json()
    return row | audit_row(build.artifact, task)


# 1,000 classes: SGD at 0.1 learned nothing in four epochs, Adam only half in eight (that model stays a row).
RECIPES = {
    10: Recipe(epochs=60_000 / 3_600, lr=0.1),
    100: Recipe(epochs=12.5, lr=0.1),
    1000: Recipe(epochs=24.0, lr=2e-3, optimizer="adam"),
}
MODELS = {f"{n}-{kind}": (n, kind == "planted", RECIPES[n]) for kind in ("planted", "clean") for n in TARGETS}
MODELS["1000-planted-8-epochs"] = (1000, True, replace(RECIPES[1000], epochs=8.0))


def run(directory: Path) -> None:
    """Train and audit the missing models."""
    RowFiles(directory).complete(MODELS, lambda name: measure(*MODELS[name], directory / f"signs-{name}"))


def table(directory: Path) -> None:
    """Write the result file."""
    stored = load_models("signs_scaling") | RowFiles(directory).read(MODELS)
    rows = {name: with_current_verdict(row) for name, row in stored.items()}
    seconds = {n: rows[f"{n}-planted"]["seconds"] for n in TARGETS if f"{n}-planted" in rows}
    ratio = seconds[1000] / seconds[10] if {10, 1000} <= set(seconds) else None
    missing = [name for name in MODELS if name not in rows]
    save_result("signs_scaling", {"threads": 1, "time_ratio": ratio, "not_yet_run": missing, "models": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    for function, help in ((run, "train and audit; resumable"), (table, "write the result file")):
        add_command(function.__name__, function, help).add_argument("directory", type=Path)
    commands.run(command_line)
