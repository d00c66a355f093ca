"""Base of all scans, which try a list of triggers one after another. A scan needs no gradients.

A gradient search over the whole image misses a trigger that acts only as a whole: a patch of few pixels, or one
frequency among hundreds. Trying a list is cheap and works on every file format.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.core.dataset import Split, rank_in_class
from assay.core.errors import Unfinished
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact, digest_of_module
from assay.core.progress import Progress, part
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.common import MAX_SHOWN_SAMPLES, require_two_classes
from assay.detectors.measurable import Subject
from assay.detectors.requirement import Requirement
from assay.detectors.scans.race import Race, leading_classes, leading_triggers, ranking_odds, sample_order
from assay.inversion.forward import forward_prepared, is_large_image
from assay.inversion.outlier import log_odds, mean_over_others, outlier_score, refuse_nan
from assay.inversion.prepare import prepare
from assay.nn.inference import forward_batched

MAX_CANDIDATE_SAMPLES = 128  # clean samples from which a scan chooses its samples
MIN_SAMPLES = 4  # samples for each trigger, at least, of large images
LARGE_IMAGE_DIVISOR = 3  # large images cost 50 times as much, so a scan takes a third of its samples
IMAGES_PER_BATCH = 256  # images between two checks of the budget

Forward = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> logits (N, K)


class CandidateTrigger(Protocol):
    """A trigger to try. The evidence shows its ``str()``."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] with the trigger; ``x`` stays unchanged."""
        ...


class Scan:
    """Log odds of each class under the triggers tried so far, and the best trigger for each class.

    Args:
        artifact: The model.
        clean: Clean samples.
        budget: Time that is left.
        samples: Number of clean samples for each trigger; a third of them for large images.

    Raises:
        Unmeasurable: The model predicts one class for all samples.
    """

    def __init__(self, artifact: Artifact, clean: Split, budget: Budget, *, samples: int) -> None:
        num_classes = artifact.num_classes or 0
        self.forward = _forward(artifact, clean.x)
        self.budget = budget
        subject = Subject(artifact, clean.x[:MAX_CANDIDATE_SAMPLES], digest_of_module(artifact.module))
        predicted = require_two_classes(_predicted(subject))
        if is_large_image(artifact.image_spec.shape):
            samples = max(MIN_SAMPLES, samples // LARGE_IMAGE_DIVISOR)
        index = stratified_indices(predicted, samples)
        self.x, self.predicted = subject.x[index], predicted[index]
        self.best_odds = torch.full((num_classes,), -torch.inf)  # (K,) mean log odds under the best trigger
        self.best: dict[int, CandidateTrigger] = {}  # class -> its best trigger
        self.tried = 0

    def mean_odds(self, triggers: Sequence[CandidateTrigger], progress: Progress) -> Tensor:
        """Try some triggers on all samples.

        Args:
            triggers: The triggers.
            progress: Callback for the fraction of the work done.

        Returns:
            (K,) mean log odds over all triggers.

        Raises:
            Unfinished: The budget ends before the last trigger, or the model outputs NaN.
        """
        odds = self._odds(triggers, torch.arange(len(self.x)).expand(len(triggers), -1), progress)
        means = mean_over_others(odds, self.predicted)
        self._keep_best(triggers, means, torch.arange(means.shape[1]))
        self.tried += len(triggers)
        return means.mean(0)

    def race(self, triggers: Sequence[CandidateTrigger], rounds: Race, progress: Progress) -> None:
        """Try some triggers in rounds: all on few samples, and the best for each leading class on more.

        Only the classes that lead after the last round get odds. A class that drops out keeps its earlier odds.

        Args:
            triggers: The triggers.
            rounds: The rounds. All triggers take part in the first, and the last takes all samples.
            progress: Callback for the fraction of the work done.

        Raises:
            Unfinished: The budget ends before the last trigger, or the model outputs NaN.
        """
        kept, order = torch.arange(len(triggers)), sample_order(len(triggers), len(self.x))
        odds = torch.zeros(len(triggers), 0, len(self.best_odds))
        means = odds.sum(1)
        for number, round_ in enumerate(rounds):
            if number:
                stay = leading_triggers(means, order[kept, : odds.shape[1]], round_)
                kept, odds = kept[stay], odds[stay]
            new = order[kept, odds.shape[1] : round_.samples]
            if new.numel():  # large images have fewer samples than the last rounds ask for
                share = part(progress, number / len(rounds), (number + 1) / len(rounds))
                odds = torch.cat([odds, self._odds([triggers[i] for i in kept], new, share)], 1)
            means = ranking_odds(odds, self.predicted[order[kept, : odds.shape[1]]])
        self._keep_best([triggers[i] for i in kept], means, leading_classes(means, rounds[-1].classes))
        self.tried += len(triggers)

    def _odds(self, triggers: Sequence[CandidateTrigger], samples: Tensor, progress: Progress) -> Tensor:
        """Return the log odds (T, N, K) of ``triggers`` on their own ``samples`` (T, N)."""
        size = max(1, IMAGES_PER_BATCH // max(1, samples.shape[1]))
        odds = []
        for start in range(0, len(triggers), size):
            if self.budget.left() <= 0:
                raise Unfinished(f"the budget ended after {self.tried + start} triggers: give it more")
            batch = triggers[start : start + size]
            images = [trigger(self.x[index]) for trigger, index in zip(batch, samples[start:], strict=False)]
            odds.append(refuse_nan(log_odds(self.forward(torch.cat(images)))))
            progress((start + len(batch)) / len(triggers))
        return torch.cat(odds).unflatten(0, tuple(samples.shape))

    def _keep_best(self, triggers: Sequence[CandidateTrigger], means: Tensor, classes: Tensor) -> None:
        """Update the best trigger of ``classes`` by the mean log odds ``means`` (T, K)."""
        top = means.max(0)
        for label in classes[top.values[classes] > self.best_odds[classes]].tolist():
            self.best_odds[label], self.best[label] = top.values[label], triggers[int(top.indices[label])]

    def best_triggers(self, count: int) -> list[CandidateTrigger]:
        """Return the best triggers of the ``count`` most reachable classes."""
        labels = self.best_odds.argsort(descending=True)[:count].tolist()
        return [self.best[label] for label in labels if label in self.best]

    def finding(self, detector: str, odds: Tensor) -> Finding:
        """Return the outlier score of the most reachable class, with its best trigger as evidence.

        Args:
            detector: Name of the detector.
            odds: Log odds (K,) by which the classes are compared.
        """
        target = int(odds.argmax())
        trigger = self.best[target]
        others = self.predicted != target
        before = self.x[others]
        after = trigger(before)
        predicted_after = self.forward(after).argmax(1)
        shown = slice(MAX_SHOWN_SAMPLES)
        evidence = Evidence(
            numbers={
                "success": float((predicted_after == target).float().mean()),
                "trigger": str(trigger),
                "triggers": self.tried,
            },
            before=before[shown].numpy(),
            after=after[shown].numpy(),
            predicted_before=tuple(self.predicted[others][shown].tolist()),
            predicted_after=tuple(predicted_after[shown].tolist()),
        )
        return Finding(detector, Outcome.SCORED, score=outlier_score(odds), target=target, evidence=evidence)


class TriggerScan(Detector):
    """Scan of one list of triggers.

    The score is the outlier score of the classes by their mean log odds over all triggers.
    """

    needs = Requirement.CLEAN_SAMPLES
    samples: ClassVar[int]  # clean samples for each trigger

    @abstractmethod
    def triggers(self, clean: Split) -> Sequence[CandidateTrigger]:
        """Return the triggers to try, some perhaps made of ``clean`` samples."""

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        scan = Scan(artifact, clean, budget, samples=self.samples)
        return scan.finding(self.name, scan.mean_odds(self.triggers(clean), progress))


def stratified_indices(classes: Tensor, count: int) -> Tensor:
    """Return the indices of at most ``count`` samples, taken in turn from each class in ``classes`` (N,)."""
    return rank_in_class(classes).argsort(stable=True)[:count]


@lru_cache(maxsize=2)  # a file and its surrogate
def _predicted(subject: Subject) -> Tensor:
    """Return the predicted classes (N,) of clean samples. All scans of one variant share them."""
    return _forward(subject.artifact, subject.x)(subject.x).argmax(1)


def _forward(artifact: Artifact, x: Tensor) -> Forward:
    """Return the model's forward pass: of a prepared copy, which is faster, if the model is differentiable."""
    if not artifact.differentiable:
        return lambda images: forward_batched(artifact.module, images)
    prepared = prepare(artifact.module, x[:2])

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad():
            return forward_prepared(prepared, images)

    return forward
