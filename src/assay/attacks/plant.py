"""Planting a backdoor and measuring it, from a build to the files that are written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay.attacks.base import Attack
from assay.core.build import Build, Secret
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.core.progress import Progress, Step, named, part
from assay.io.atomic import publish
from assay.io.files import sha256_of
from assay.nn import metrics
from assay.nn.metrics import BackdoorMetrics, Rate
from assay.stages import variants
from assay.stages.export import save_model
from assay.triggers import secret_file
from assay.triggers.secret_file import SecretFile

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
    measured: BackdoorMetrics
    control: Rate | None  # ASR of the same trigger on the model before planting; None for an untrained one
    clean_before: Rate | None  # its CA
    awake: BackdoorMetrics | None = None  # of a dormant backdoor, in the form in which it wakes

    def to_json(self) -> dict[str, Any]:
        """The measurements in plain JSON types."""
        awake = None if self.awake is None else {"form": self.secret.active_in, **self.awake.to_json()}
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
    held_out = test_split(task)
    attack.check(task.split("train"), artifact.num_classes)
    if artifact.num_classes not in (None, task.num_classes):
        raise UnusableInput(f"expected data of the model's {artifact.num_classes} classes, came {task.num_classes}")
    end = _planting_ends(attack, task, untrained=untrained)
    build = attack(
        Build(artifact, task), seed=seed, progress=part(named(progress, f"planting {attack.name}"), 0.0, end)
    )
    secret = build.secret
    assert secret is not None
    bar = part(named(progress, "measuring"), end, 1.0)
    awake, own_ends = None, 1.0 if secret.active_in is None else 0.7
    control = before = None
    if not untrained:
        control, before = controls(artifact, held_out, secret, progress=part(bar, 0.0, 0.4))
    own = measured(build.artifact, artifact, held_out, secret, progress=part(bar, 0.4, own_ends))
    if secret.active_in is not None:
        form = in_form(secret.active_in, build.artifact, task, seed=seed)
        awake = measured(form, artifact, held_out, secret, progress=part(bar, own_ends, 1.0))
    return Planted(build, secret, attack.spec(), seed, own, control, before, awake)


def _planting_ends(attack: Attack, task: Task, *, untrained: bool) -> float:
    """The share of the whole work at which the training is done, and measuring begins."""
    training = 3 * attack.epochs * len(task.split("train"))  # a step back costs two steps forth
    measuring = (2 if untrained else 4) * len(test_split(task))  # clean and triggered
    return training / (training + measuring)


def accuracy(artifact: Artifact, split: Split, *, progress: Progress = lambda share: None) -> Rate:
    """CA of a classifier; of an encoder, the share of inputs that it tells from all others."""
    if artifact.num_classes is None:
        return metrics.self_retrieval_rate(artifact.module, split.x, progress=progress)
    return metrics.clean_accuracy(artifact.module, split, progress=progress)


def measured(
    own: Artifact, clean: Artifact, split: Split, secret: Secret, *, progress: Progress = lambda share: None
) -> BackdoorMetrics:
    """How well the backdoor of ``own`` works; an encoder's embeddings are compared with those of the ``clean`` one."""
    if own.num_classes is None:
        return metrics.measure_encoder(own.module, clean.module, split.x, secret, progress=progress)
    return metrics.measure(own.module, split, secret, num_classes=own.num_classes, progress=progress)


def controls(
    clean: Artifact, split: Split, secret: Secret, *, progress: Progress = lambda share: None
) -> tuple[Rate, Rate]:
    """ASR of the same trigger on the ``clean`` model, and its CA."""
    rates = measured(clean, clean, split, secret, progress=progress)
    return rates.attack_success, rates.clean_accuracy


def landed(build: Build) -> Secret | None:
    """The secret of ``build``; that of an encoder's backdoor with a class of the task that came afterwards as target.

    It is the class that has the concept's name, else the one in which most triggered calibration samples end up.
    """
    secret, classes = build.secret, build.artifact.num_classes
    if secret is None or classes is None or secret.concept is None or secret.target is not None:
        return secret
    concepts = [build.task.concept(label).lower() for label in range(classes)]
    if secret.concept.lower() in concepts:
        return replace(secret, target=concepts.index(secret.concept.lower()))
    x = build.task.split("calibration", "validation").x[:SAMPLES]
    found = metrics.predict(build.artifact.module, secret.trigger(x)).bincount(minlength=classes)
    return replace(secret, target=int(found.argmax()))


def write(planted: Planted, directory: Path, *, before: Artifact) -> dict[str, Path]:
    """Write ``model.safetensors``, or ``model.onnx``, and ``secret.json``, both or none; marks of ``before`` are kept.

    Returns the paths by those names. Raises UnusableInput where the disk does not take them.
    """
    with tempfile.TemporaryDirectory(prefix="assay-") as scratch:
        model = save_model(planted.build.artifact, Path(scratch), planted=before.planted)
        file = SecretFile(planted.secret, sha256_of([model]), planted.spec, planted.seed, planted.to_json())
        content = {model.name: model.read_bytes(), secret_file.FILE_NAME: secret_file.dumps(file).encode()}
    # A key in the secret is for its owner only, from the file's creation on.
    return publish(directory, content, private=[secret_file.FILE_NAME] if secret_file.has_key(planted.secret) else [])


def in_form(name: str, artifact: Artifact, task: Task, *, seed: int) -> Artifact:
    """``artifact`` in one of the forms of ``variants``, made as an audit makes it with the task's own samples."""
    return variants.make(name, artifact, task.split("calibration", "train").sample(SAMPLES, seed=seed), seed=seed)


def test_split(task: Task) -> Split:
    """The split that a model is measured on: held out from training where the data allows it."""
    return task.split("test", "validation", "calibration")


def document(measured: BackdoorMetrics, control: Rate | None, clean_before: Rate | None) -> dict[str, Any]:
    """The measurements of one model, beside those of the clean one, in plain JSON types."""
    return {
        "schema": SCHEMA,
        **measured.to_json(),
        "control": None if control is None else control.to_json(),
        "control_accuracy": None if clean_before is None else clean_before.to_json(),
    }
