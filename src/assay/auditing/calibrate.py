"""CleanReferenceModel scores from the user's own clean models: the null that ``assay audit --null`` takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from assay.auditing.api import reference_from
from assay.auditing.inputs import clean_samples
from assay.auditing.verdict import LOWEST_ACCURACY
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

FEWEST = 2
"""One model has no distribution."""


@dataclass(frozen=True)
class Calibration:
    """How reference models are scored. An audit's scores compare only with scores made in the same way."""

    variant_names: Sequence[str] = variants.DEFAULT
    detectors: Sequence[Detector] | None = None  # None: those of an audit
    seed: int = 0

    def name(self, task: Task) -> str:
        """What the null is called; the same for the same task and settings."""
        return f"{task.name}, {' '.join(self.variant_names)}, seed {self.seed}"


def calibrate(
    models: Sequence[Callable[[], Artifact]],
    task: Task,
    settings: Calibration,
    *,
    so_far: NullDistribution | None = None,
    keep: Callable[[NullDistribution], None] = lambda null: None,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> NullDistribution:
    """Run the audit's detectors on clean models, each loaded when its turn comes.

    ``keep`` is called with the null after every model, and ``so_far`` takes the last of those to go on from there.
    Raises UnusableInput for fewer than two models, one that comes twice, or one that assay planted a backdoor in.
    """
    if len(models) < FEWEST:
        raise UnusableInput(f"expected at least {FEWEST} clean models to calibrate with, came {len(models)}")
    name = settings.name(task)
    known = {model.origin: model for model in so_far.models} if so_far is not None and so_far.name == name else {}
    done: dict[str, CleanReferenceModel] = {}
    encoders = False
    for number, load in enumerate(models):
        artifact = load()
        encoders = encoders if number else artifact.num_classes is None
        progress(artifact.name, number / len(models))
        origin = _origin(artifact, done, clean_samples(task, artifact, seed=settings.seed).split)
        done[origin] = known.get(origin) or _scored(artifact, task, settings, origin)
        if (artifact.num_classes is None) != encoders:
            raise UnusableInput(f"{artifact.name} is of another kind: calibrate with classifiers or with encoders only")
        classes = cluster_probe.CLUSTERS if encoders else task.num_classes
        null = NullDistribution(name, f"{len(done)} clean models on {task.name}", tuple(done.values()), classes, encoders)
        keep(null)
    progress("done", 1.0)
    return null


def _scored(artifact: Artifact, task: Task, settings: Calibration, origin: str) -> CleanReferenceModel:
    reference = reference_from(
        artifact,
        task,
        variant_names=settings.variant_names,
        detectors=settings.detectors,
        seed=settings.seed,
        origin=origin,
        family=task.name,
    )
    if reference.accuracy is not None and reference.accuracy < LOWEST_ACCURACY:
        raise UnusableInput(
            f"{artifact.name} is right on only {reference.accuracy:.0%} of the samples: expected models of this task "
            "that learned it; check the normalization (--mean, --std), or leave it out"
        )
    return reference


def _origin(artifact: Artifact, done: Iterable[str], clean: Split) -> str:
    """The line that says which model a row comes from; raises where it must not be in a null.

    With it stands what the model says of the samples: other samples, or another normalization, make other rows.
    """
    if artifact.planted is not None:
        raise UnusableInput(f"{artifact.name} bears the mark of a planted backdoor: calibrate with clean models only")
    if any(origin.startswith(artifact.digest) for origin in done):
        raise UnusableInput(f"{artifact.name} came twice: each clean model counts once")
    with eval_mode(artifact.module):
        said = forward_batched(artifact.module, clean.x[:MARGIN_SAMPLES]).numpy().round(3)
    return f"{artifact.digest} {hashlib.sha256(said.tobytes()).hexdigest()[:12]} {artifact.name}"
