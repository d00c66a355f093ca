"""Planting a backdoor and measuring it, from a build to the files that are written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import formats, metrics, secret_file, variants
from assay.artifact import Artifact, Build, Secret
from assay.attacks.base import Attack
from assay.errors import UnusableInput
from assay.formats.files import sha256_of
from assay.metrics import Measured, Rate
from assay.progress import Step, named, part
from assay.report.files import publish
from assay.secret_file import SecretFile
from assay.task import Split, Task

SCHEMA = "assay.metrics/1"

SAMPLES = 512
"""Clean samples that a form is made with, as in an audit."""


@dataclass(frozen=True)
class Planted:
    """A backdoored build and how well the backdoor works."""

    build: Build
    secret: Secret
    spec: Mapping[str, Any]
    seed: int
    measured: Measured
    control: Rate | None  # ASR of the same trigger on the model before planting; None for an untrained one
    clean_before: Rate | None  # its CA
    awake: Measured | None = None  # of a dormant backdoor, in the form in which it wakes

    def to_json(self) -> dict[str, Any]:
        """The measurements in plain JSON types."""
        awake = None if self.awake is None else {"form": self.secret.wakes_in, **self.awake.to_json()}
        return {**document(self.measured, self.control, self.clean_before), "awake": awake}


def plant(
    attack: Attack,
    artifact: Artifact,
    task: Task,
    *,
    seed: int = 0,
    untrained: bool = False,
    progress: Step = lambda what, share: None,
) -> Planted:
    """Plant ``attack`` in a copy of ``artifact``, and measure it on the task's test split.

    ``untrained``: the net is fresh, so that what it does before is no control. Raises UnusableInput where the model or
    the data does not allow it.
    """
    if not artifact.differentiable:
        raise UnusableInput(
            f"planting needs weights in torch, which a model in {artifact.format} format does not have: give the model "
            "that it was made from"
        )
    held_out, classes, secret = test_split(task), task.num_classes, attack.secret()
    if artifact.num_classes != classes:
        raise UnusableInput(f"expected data of the model's {artifact.num_classes} classes, came {classes}")
    control = before = None
    start, end = _planting_lies_between(attack, task, untrained=untrained)
    if not untrained:
        bar = part(named(progress, "measuring the model as it is"), 0.0, start)
        control = metrics.attack_success(
            artifact.net, held_out, secret, num_classes=classes, progress=part(bar, 0.0, 0.5)
        )
        before = metrics.clean_accuracy(artifact.net, held_out, progress=part(bar, 0.5, 1.0))
    bar = part(named(progress, f"planting {attack.name}"), start, end)
    build = attack(Build(artifact, task), seed=seed, progress=bar)
    bar = part(named(progress, "measuring the backdoor"), end, 1.0)
    if secret.wakes_in is None:
        measured = metrics.measure(build.artifact.net, held_out, secret, num_classes=classes, progress=bar)
        return Planted(build, secret, attack.spec(), seed, measured, control, before)
    form = in_form(secret.wakes_in, build.artifact, task, seed=seed)
    halves = part(bar, 0.0, 0.5), part(bar, 0.5, 1.0)
    measured, awake = (
        metrics.measure(model.net, held_out, secret, num_classes=classes, progress=half)
        for model, half in zip((build.artifact, form), halves, strict=True)
    )
    return Planted(build, secret, attack.spec(), seed, measured, control, before, awake)


def _planting_lies_between(attack: Attack, task: Task, *, untrained: bool) -> tuple[float, float]:
    """The shares of the whole work at which the training starts and ends; measuring comes before and after."""
    training = 3 * attack.epochs * len(task.split("train"))  # a step back costs two steps forth
    measuring = 2 * len(test_split(task))  # clean and triggered
    before = 0 if untrained else measuring
    whole = before + training + measuring
    return before / whole, (before + training) / whole


def write(planted: Planted, directory: Path, *, before: Artifact) -> dict[str, Path]:
    """Write ``model.safetensors`` and ``secret.json``, both or none; a mark that ``before`` bears is kept.

    Returns the paths by those names. Raises UnusableInput where the disk does not take them.
    """
    with tempfile.TemporaryDirectory(prefix="assay-") as scratch:
        model = formats.save(planted.build.artifact, Path(scratch), planted=before.planted)
        file = SecretFile(planted.secret, sha256_of([model]), planted.spec, planted.seed, planted.to_json())
        content = {model.name: model.read_bytes(), secret_file.FILE_NAME: secret_file.dumps(file).encode()}
    return publish(directory, content)


def in_form(name: str, artifact: Artifact, task: Task, *, seed: int) -> Artifact:
    """``artifact`` in one of the forms of ``variants``, made as an audit makes it with the task's own samples."""
    return variants.make(name, artifact, task.split("calibration", "train").sample(SAMPLES, seed=seed), seed=seed)


def test_split(task: Task) -> Split:
    """The split that a model is measured on: held out from training where the data allows it."""
    return task.split("test", "validation", "calibration")


def document(measured: Measured, control: Rate | None, clean_before: Rate | None) -> dict[str, Any]:
    """The measurements of one model, beside those of the clean one, in plain JSON types."""
    return {
        "schema": SCHEMA,
        **measured.to_json(),
        "control": None if control is None else control.to_json(),
        "control_accuracy": None if clean_before is None else clean_before.to_json(),
    }
