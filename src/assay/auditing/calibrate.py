"""Calibration: a null distribution from the user's own clean models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from assay.auditing.describe import describe
from assay.auditing.detection import run_tests
from assay.auditing.facts import RunContext
from assay.auditing.inputs import clean_samples
from assay.auditing.plan import plan_audit
from assay.auditing.verdict import MIN_ACCURACY, scores_of
from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.detectors.base import Detector
from assay.detectors.encoder import cluster_probe
from assay.nn.inference import forward_batched
from assay.nn.modes import eval_mode
from assay.nn.unit_margin import MARGIN_SAMPLES
from assay.stages import variants

MIN_MODELS = 2  # one model has no distribution


@dataclass(frozen=True)
class Calibration:
    """Settings for scoring reference models. Scores compare only with scores from the same settings."""

    variant_names: Sequence[str] = variants.DEFAULT
    detectors: Sequence[Detector] | None = None  # None: the default detectors
    seed: int = 0

    def name(self, task: Task) -> str:
        """Return the name of the null: the same for the same task and settings."""
        return f"{task.name}, {' '.join(self.variant_names)}, seed {self.seed}"


def calibrate(
    models: Sequence[Callable[[], Artifact]],
    task: Task,
    settings: Calibration,
    *,
    so_far: NullDistribution | None = None,
    keep: Callable[[NullDistribution], None] = lambda null: None,
    progress: Callable[[str, float], None] = lambda step, fraction: None,
) -> NullDistribution:
    """Run the audit's detectors on clean models.

    Args:
        models: Loaders of the clean models. Each is called when the model is needed.
        task: Clean data.
        settings: The same as of the audits to compare.
        so_far: The last null of an interrupted call; its models are not scored again.
        keep: Called with the null after every model.
        progress: Callback for the current model, and the fraction done.

    Raises:
        UnusableInput: Fewer than two models, a model given twice, a model with a planted backdoor, or a mix of
            classifiers and encoders.
    """
    if len(models) < MIN_MODELS:
        raise UnusableInput(f"expected at least {MIN_MODELS} clean models to calibrate with, got {len(models)}")
    name = settings.name(task)
    known = {model.origin: model for model in so_far.models} if so_far is not None and so_far.name == name else {}
    done: dict[str, CleanReferenceModel] = {}
    encoders = False
    for number, load in enumerate(models):
        artifact = load()
        encoders = encoders if number else artifact.num_classes is None
        progress(artifact.name, number / len(models))
        origin = _origin(artifact, done, clean_samples(task, artifact, seed=settings.seed).split)
        done[origin] = known.get(origin) or _score(artifact, task, settings, origin)
        if (artifact.num_classes is None) != encoders:
            raise UnusableInput(
                f"expected models of one kind, got both classifiers and encoders at {artifact.name}. "
                "Fix: calibrate with one kind at a time."
            )
        classes = cluster_probe.CLUSTERS if encoders else task.num_classes
        description = f"{len(done)} clean models on {task.name}"
        null = NullDistribution(name, description, tuple(done.values()), classes, encoders)
        keep(null)
    progress("done", 1.0)
    return null


def score_clean_model(
    model: Artifact,
    data: Task | Split,
    settings: Calibration,
    *,
    origin: str = "",
    family: str = "",
) -> CleanReferenceModel:
    """Score a clean model as one of the reference models.

    Args:
        model: The clean model.
        data: Clean data.
        settings: Variants, detectors and seed.
        origin: One line: task, architecture, recipe.
        family: Family of the data: photos, digits, ...
    """
    detectors = None if settings.detectors is None else tuple(settings.detectors)
    with eval_mode(model.module):
        inputs = describe(model, clean_samples(data, model, seed=settings.seed), None, seed=settings.seed)
        plan = plan_audit(inputs.artifact, variants.parse(tuple(settings.variant_names)), detectors, None)
        run = run_tests(inputs, plan, RunContext(settings.seed))
    return CleanReferenceModel(
        scores_of(run.findings), origin, inputs.preconditions.accuracy, family, inputs.profile or ()
    )


def _score(artifact: Artifact, task: Task, settings: Calibration, origin: str) -> CleanReferenceModel:
    reference = score_clean_model(artifact, task, settings, origin=origin, family=task.name)
    if reference.accuracy is not None and reference.accuracy < MIN_ACCURACY:
        raise UnusableInput(
            f"{artifact.name} is right on only {reference.accuracy:.0%} of the samples: expected well trained models "
            "of this task. Fix: check the normalization (mean, std), or leave the model out."
        )
    return reference


def _origin(artifact: Artifact, done: Iterable[str], clean: Split) -> str:
    """Return a line to identify a reference model and its outputs.

    Other samples, or another normalization, give other outputs and so another line.

    Args:
        artifact: The clean model.
        done: Lines of the models before it.
        clean: Clean samples.

    Raises:
        UnusableInput: A backdoor was planted in the model, or the model was given before.
    """
    if artifact.planted is not None:
        raise UnusableInput(
            f"expected clean models, got {artifact.name} with the mark of a planted backdoor. Fix: leave it out."
        )
    if any(origin.startswith(artifact.digest) for origin in done):
        raise UnusableInput(f"expected each clean model once, got {artifact.name} twice. Fix: leave it out.")
    with eval_mode(artifact.module):
        outputs = forward_batched(artifact.module, clean.x[:MARGIN_SAMPLES]).numpy().round(3)
    return f"{artifact.digest} {hashlib.sha256(outputs.tobytes()).hexdigest()[:12]} {artifact.name}"
