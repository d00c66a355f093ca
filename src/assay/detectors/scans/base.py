"""A scan: triggers from a list, tried one after another, and the best for each class kept. Needs no gradients.

A search that follows gradients from the whole picture overlooks what acts only when it is whole: a patch of few pixels,
one frequency among hundreds. Trying them is cheap, and works on any file that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from assay.core.dataset import Split, rank_in_class
from assay.core.errors import Unfinished
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.detectors.budget import Budget
from assay.detectors.trigger_inversion.common import told_apart
from assay.inversion.class_search import LARGE_IMAGE_PIXELS, require_finite
from assay.inversion.outlier import log_odds, mean_over_others, outlier_score
from assay.inversion.prepare import forward_prepared, prepare
from assay.nn.inference import forward_batched

DRAWN_FROM = 128
"""Clean samples among which those that triggers are tried on are chosen."""

FEWEST = 4
"""Samples that a trigger is tried on at least, where pictures are large."""

AT_ONCE = 32
"""Triggers tried between two looks at the clock."""

Answer = Callable[[Tensor], Tensor]  # (N, C, H, W) -> (N, K) logits


class Tried(Protocol):
    """A trigger to try; ``str()`` of it is what the evidence calls it."""

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> the same with the trigger; ``x`` stays as it is."""
        ...


class Scan:
    """What has been tried so far on ``samples`` clean pictures, and the best trigger for each class.

    Large pictures cost 50 times as much: there a third of the samples does.
    Raises Inconclusive where the net gives all of them one class.
    """

    def __init__(self, artifact: Artifact, clean: Split, budget: Budget, *, samples: int) -> None:
        self.answer = _answer(artifact, clean.x)
        self.budget = budget
        before = told_apart(self.answer(clean.x[:DRAWN_FROM]).argmax(1))
        if artifact.image_spec.shape[1] * artifact.image_spec.shape[2] > LARGE_IMAGE_PIXELS:
            samples = max(FEWEST, samples // 3)
        chosen = spread(before, samples)
        self.x, self.before = clean.x[:DRAWN_FROM][chosen], before[chosen]
        self.ease = torch.full((artifact.num_classes or 0,), -torch.inf)  # (K,) mean log odds of the best trigger
        self.best: dict[int, Tried] = {}  # that trigger
        self._total = torch.zeros(artifact.num_classes or 0)  # (K,) of the mean log odds of all triggers
        self.tried = 0

    def sweep(self, triggers: Sequence[Tried], progress: Callable[[float], None]) -> None:
        """Try ``triggers``; raises Unfinished where the budget ends before the last."""
        for start in range(0, len(triggers), AT_ONCE):
            if self.budget.left() <= 0:
                raise Unfinished(f"the budget ended after {self.tried} triggers: give it more")
            some = triggers[start : start + AT_ONCE]
            odds = require_finite(log_odds(self.answer(torch.cat([trigger(self.x) for trigger in some]))))
            means = mean_over_others(odds.unflatten(0, (len(some), -1)), self.before)
            self._total += means.sum(0)
            top = means.max(0)
            for label in (top.values > self.ease).nonzero()[:, 0].tolist():
                self.ease[label], self.best[label] = top.values[label], some[int(top.indices[label])]
            self.tried += len(some)
            progress(min(1.0, self.tried / len(triggers)))

    @property
    def mean(self) -> Tensor:
        """(K,) mean log odds over all triggers so far."""
        return self._total / max(1, self.tried)

    def easiest(self, count: int) -> list[Tried]:
        """The best triggers of the ``count`` classes that are the easiest to reach."""
        return [self.best[label] for label in self.ease.argsort(descending=True)[:count].tolist() if label in self.best]

    def finding(self, detector: str, ease: Tensor | None = None) -> Finding:
        """How far the easiest class stands out, and what reaches it best.

        ``ease`` (K,): by what the classes are compared; by default the log odds of the best trigger for each.
        """
        ease = self.ease if ease is None else ease
        target = int(ease.argmax())
        trigger = self.best[target]
        chosen = self.before != target
        others = self.x[chosen]
        after = trigger(others)
        said = self.answer(after).argmax(1)
        return Finding(
            detector,
            Outcome.SCORED,
            score=outlier_score(ease),
            target=target,
            evidence=Evidence(
                numbers={
                    "success": float((said == target).float().mean()),
                    "trigger": str(trigger),
                    "triggers": self.tried,
                },
                before=others[:6].numpy(),
                after=after[:6].numpy(),
                predicted_before=tuple(self.before[chosen][:6].tolist()),
                predicted_after=tuple(said[:6].tolist()),
            ),
        )


def _answer(artifact: Artifact, x: Tensor) -> Answer:
    """Pictures -> logits: the fast way where the net can be prepared for a search, else the model's own."""
    if not artifact.differentiable:
        return lambda pictures: forward_batched(artifact.module, pictures)
    net = prepare(artifact.module, x[:2])

    def answer(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            return forward_prepared(net, pictures)

    return answer


def spread(classes: Tensor, count: int) -> Tensor:
    """Indices of at most ``count`` samples, taken in turn from the classes in ``classes`` (N,)."""
    return rank_in_class(classes).argsort(stable=True)[:count]
