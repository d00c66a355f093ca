"""Reference scores from the user's own clean models: the null that ``assay audit --null`` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from assay import variants
from assay.artifact import Artifact
from assay.auditing import score_model
from assay.calibrate import Null, Reference, Score
from assay.detectors.base import Detector
from assay.errors import UnusableInput
from assay.task import Task

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
    so_far: Null | None = None,
    keep: Callable[[Null], None] = lambda null: None,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Null:
    """Run the audit's detectors on clean models, each loaded when its turn comes.

    ``keep`` is called with the null after every model, and ``so_far`` takes the last of those to go on from there.
    Raises UnusableInput for fewer than two models, one that comes twice, or one that assay planted a backdoor in.
    """
    if len(models) < FEWEST:
        raise UnusableInput(f"expected at least {FEWEST} clean models to calibrate with, came {len(models)}")
    name = settings.name(task)
    known = dict(_rows(so_far)) if so_far is not None and so_far.name == name else {}
    rows: dict[str, Mapping[str, Score]] = {}
    for number, load in enumerate(models):
        artifact = load()
        progress(artifact.name, number / len(models))
        origin = _origin(artifact, rows)
        rows[origin] = known.get(origin) or score_model(
            artifact, task, variant_names=settings.variant_names, detectors=settings.detectors, seed=settings.seed
        )
        models_so_far = tuple(Reference(scores, line) for line, scores in rows.items())
        null = Null(name, f"{len(rows)} clean models on {task.name}", models_so_far, task.num_classes)
        keep(null)
    progress("done", 1.0)
    return null


def _origin(artifact: Artifact, rows: Mapping[str, object]) -> str:
    """The line that says which model a row comes from; raises where it must not be in a null."""
    if artifact.planted is not None:
        raise UnusableInput(f"{artifact.name} bears the mark of a planted backdoor: calibrate with clean models only")
    if any(origin.startswith(artifact.digest) for origin in rows):
        raise UnusableInput(f"{artifact.name} came twice: each clean model counts once")
    return f"{artifact.digest} {artifact.name}"


def _rows(null: Null) -> Iterator[tuple[str, Mapping[str, Score]]]:
    yield from ((model.origin, model.scores) for model in null.models)
