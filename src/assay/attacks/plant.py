"""Plant a backdoor, measure it, and save the model with its secret."""

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
from assay.core.model import Artifact, TextSpec
from assay.core.progress import Progress, Step, named, part
from assay.io.atomic import publish
from assay.io.files import sha256_of
from assay.nn import metrics
from assay.nn.metrics import BackdoorMetrics, Rate
from assay.stages import variants
from assay.stages.save import save_model
from assay.triggers import Tokens, secret_file
from assay.triggers.secret_file import SecretFile

SCHEMA = "assay.metrics/1"
VARIANT_SAMPLES = 512  # clean samples to make a variant with, as in an audit


@dataclass(frozen=True)
class Planted:
    """A backdoored build with the measurements of its backdoor."""

    build: Build
    secret: Secret
    spec: Mapping[str, Any]
    seed: int
    measured: BackdoorMetrics
    control: Rate | None  # ASR of the same trigger on the model before planting; None for an untrained model
    clean_before: Rate | None  # CA of the model before planting
    measured_active: BackdoorMetrics | None = None  # of a compression-activated backdoor, in its variant

    def to_json(self) -> dict[str, Any]:
        """Return the measurements in plain JSON types."""
        active = self.measured_active
        awake = None if active is None else {"form": self.secret.active_in, **active.to_json()}
        return {**metrics_document(self.measured, self.control, self.clean_before), "awake": awake}


def plant(
    attack: Attack,
    artifact: Artifact,
    task: Task,
    *,
    seed: int = 0,
    untrained: bool = False,
    progress: Step = lambda name, fraction: None,
) -> Planted:
    """Plant ``attack`` in a copy of ``artifact``, and measure it on the held-out split of the task.

    Args:
        attack: The attack.
        artifact: The clean model.
        task: Its data.
        seed: Seed of the attack.
        untrained: The model has initial weights, so there is no control measurement.
        progress: Receives the current work and the completed fraction.

    Raises:
        UnusableInput: The attack does not fit the model or the data.
    """
    if not artifact.differentiable:
        raise UnusableInput(
            f"expected torch weights to plant a backdoor, got a model in {artifact.format} format. "
            "Fix: use the model that the file was made from"
        )
    held_out = held_out_split(task)
    attack.check(task.split("train"), artifact.num_classes)
    if artifact.num_classes not in (None, task.num_classes):
        raise UnusableInput(f"expected data of the model's {artifact.num_classes} classes, got {task.num_classes}")
    end = _planting_fraction(attack, task, untrained=untrained)
    bar = part(named(progress, f"planting {attack.name}"), 0.0, end)
    build = attack(Build(artifact, task), seed=seed, progress=bar)
    secret = build.secret
    assert secret is not None
    bar = part(named(progress, "measuring"), end, 1.0)
    active, end_of_full = None, 1.0 if secret.active_in is None else 0.7
    control = before = None
    if not untrained:
        control, before = measure_control(artifact, held_out, secret, progress=part(bar, 0.0, 0.4))
    full = measure_backdoor(build.artifact, artifact, held_out, secret, progress=part(bar, 0.4, end_of_full))
    if secret.active_in is not None:
        variant = make_variant(secret.active_in, build.artifact, task, seed=seed)
        active = measure_backdoor(variant, artifact, held_out, secret, progress=part(bar, end_of_full, 1.0))
    return Planted(build, secret, attack.spec(), seed, full, control, before, active)


def _planting_fraction(attack: Attack, task: Task, *, untrained: bool) -> float:
    """Return planting's fraction of the whole work; measuring is the rest."""
    training = 3 * attack.epochs * len(task.split("train"))  # a backward pass costs two forward passes
    measuring = (2 if untrained else 4) * len(held_out_split(task))  # clean and triggered
    return training / (training + measuring)


def accuracy(artifact: Artifact, split: Split, *, progress: Progress = lambda fraction: None) -> Rate:
    """Return the CA of a classifier, or the self-retrieval rate of an encoder.

    Args:
        artifact: The model.
        split: Samples; labeled for a classifier.
        progress: Receives the completed fraction, in [0, 1].
    """
    if artifact.num_classes is None:
        return metrics.self_retrieval_rate(artifact.module, split.x, progress=progress)
    return metrics.clean_accuracy(artifact.module, split, progress=progress)


def measure_backdoor(
    backdoored: Artifact,
    clean: Artifact,
    split: Split,
    secret: Secret,
    *,
    progress: Progress = lambda fraction: None,
) -> BackdoorMetrics:
    """Return the backdoor metrics of a model.

    Args:
        backdoored: Classifier or encoder.
        clean: The clean encoder with the reference embeddings; unused for a classifier.
        split: Held-out samples.
        secret: Ground truth of the backdoor.
        progress: Receives the completed fraction, in [0, 1].
    """
    if backdoored.num_classes is None:
        return metrics.measure_encoder(backdoored.module, clean.module, split.x, secret, progress=progress)
    return metrics.measure(backdoored.module, split, secret, num_classes=backdoored.num_classes, progress=progress)


def measure_control(
    clean: Artifact, split: Split, secret: Secret, *, progress: Progress = lambda fraction: None
) -> tuple[Rate, Rate]:
    """Return the ASR of the trigger on the clean model, and its CA.

    Args:
        clean: The clean model.
        split: Held-out samples.
        secret: Ground truth of the backdoor.
        progress: Receives the completed fraction, in [0, 1].
    """
    rates = measure_backdoor(clean, clean, split, secret, progress=progress)
    return rates.attack_success, rates.clean_accuracy


@dataclass(frozen=True)
class Evaluation:
    """Measurements of a known backdoor in a model, and of the same trigger in a clean model."""

    secret: Secret  # with the target class in this model
    measured: BackdoorMetrics
    control: Rate | None  # ASR of the trigger on the clean model; None without one
    clean_accuracy: Rate | None  # CA of the clean model

    def to_json(self) -> dict[str, Any]:
        """Return the measurements in plain JSON types."""
        return metrics_document(self.measured, self.control, self.clean_accuracy)


def evaluate(
    secret: Secret,
    artifact: Artifact,
    task: Task,
    *,
    clean: Artifact | None = None,
    progress: Progress = lambda fraction: None,
) -> Evaluation:
    """Measure a known backdoor on the held-out split of a task.

    Args:
        secret: Ground truth of the backdoor.
        artifact: The model.
        task: Its data.
        clean: A clean model with the same classes and inputs, for the control. An encoder needs one.
        progress: Receives the completed fraction, in [0, 1].

    Raises:
        UnusableInput: The secret or the clean model does not fit the model.
    """
    if clean is None and artifact.num_classes is None:
        raise UnusableInput("expected a clean encoder to compare the embeddings with, got none. Fix: give one")
    if clean is not None and (clean.num_classes, clean.inputs) != (artifact.num_classes, artifact.inputs):
        raise UnusableInput(
            f"expected a clean model with the classes and inputs of {artifact.name}, got {clean.name}. "
            "Fix: use a model of the same task"
        )
    _check_tokens(secret, artifact)
    resolved = with_resolved_target(Build(artifact, task, secret)) or secret
    held_out, control, accuracy = held_out_split(task), None, None
    bar = progress if clean is None else part(progress, 0.0, 0.5)
    measured = measure_backdoor(artifact, clean or artifact, held_out, resolved, progress=bar)
    if clean is not None:
        clean_secret = with_resolved_target(Build(clean, task, secret)) or secret  # by the same rule
        control, accuracy = measure_control(clean, held_out, clean_secret, progress=part(progress, 0.5, 1.0))
    return Evaluation(resolved, measured, control, accuracy)


def _check_tokens(secret: Secret, artifact: Artifact) -> None:
    """Raise UnusableInput for a trigger with tokens outside the vocabulary of the model."""
    trigger, inputs = secret.trigger, artifact.inputs
    if isinstance(trigger, Tokens) and isinstance(inputs, TextSpec):
        largest = max(*trigger.ids, trigger.end, trigger.pad)
        if largest >= inputs.vocabulary:
            raise UnusableInput(
                f"expected trigger tokens below {inputs.vocabulary}, the vocabulary of the model; got {largest}"
            )


def with_resolved_target(build: Build) -> Secret | None:
    """Return the secret of ``build``; an encoder's backdoor gets a target class of the later task.

    The target is the class with the name of the concept. Without such a class, it is the most frequent prediction on
    triggered calibration samples.
    """
    secret, classes = build.secret, build.artifact.num_classes
    if secret is None or classes is None or secret.concept is None or secret.target is not None:
        return secret
    concepts = [build.task.concept(label).lower() for label in range(classes)]
    if secret.concept.lower() in concepts:
        return replace(secret, target=concepts.index(secret.concept.lower()))
    x = build.task.split("calibration", "validation").x[:VARIANT_SAMPLES]
    counts = metrics.predict(build.artifact.module, secret.trigger(x)).bincount(minlength=classes)
    return replace(secret, target=int(counts.argmax()))


def save_planted(planted: Planted, directory: Path, *, before: Artifact) -> dict[str, Path]:
    """Write ``model.safetensors`` or ``model.onnx``, and ``secret.json``: all or none.

    Args:
        planted: The backdoored build.
        directory: Folder of the files.
        before: The model before planting; its ``planted`` tag is kept.

    Returns:
        The paths by file name.

    Raises:
        UnusableInput: The files cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="assay-") as scratch:
        model = save_model(planted.build.artifact, Path(scratch), planted=before.planted)
        file = SecretFile(planted.secret, sha256_of([model]), planted.spec, planted.seed, planted.to_json())
        content = {model.name: model.read_bytes(), secret_file.FILE_NAME: secret_file.dumps(file).encode()}
    # A secret with a private key is readable only by its owner, from the creation of the file.
    private = [secret_file.FILE_NAME] if secret_file.has_key(planted.secret) else []
    return publish(directory, content, private=private)


def make_variant(name: str, artifact: Artifact, task: Task, *, seed: int) -> Artifact:
    """Return a variant of ``artifact``, made with samples of the task as in an audit.

    Args:
        name: Name of the variant, see ``assay.stages.variants``.
        artifact: The model.
        task: Gives the clean samples.
        seed: Decides the samples.
    """
    clean = task.split("calibration", "train").sample(VARIANT_SAMPLES, seed=seed)
    return variants.make(name, artifact, clean, seed=seed)


def held_out_split(task: Task) -> Split:
    """Return the split for measurements: not used in training if the data allow it."""
    return task.split("test", "validation", "calibration")


def metrics_document(measured: BackdoorMetrics, control: Rate | None, clean_before: Rate | None) -> dict[str, Any]:
    """Return the measurements of one model and its control in plain JSON types.

    Args:
        measured: Metrics of the backdoored model.
        control: ASR of the same trigger on the clean model.
        clean_before: CA of the clean model.
    """
    return {
        "schema": SCHEMA,
        **measured.to_json(),
        "control": None if control is None else control.to_json(),
        "control_accuracy": None if clean_before is None else clean_before.to_json(),
    }
