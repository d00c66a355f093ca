"""Maximum margin: the class whose logit can exceed all others furthest, over all possible inputs. Needs no data.

Wang, Xiang, Miller, Kesidis: MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor Pattern Types
Using a Maximum Margin Statistic, IEEE S&P 2024, arXiv 2205.06900.

Here each restart takes 50 steps of Adam, for all its classes in one batch. All classes get one restart. Only the
leading classes get more, as the score compares the four largest margins. A log ratio against clean reference models
replaces the gamma fit over the other classes.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, Unfinished, Unmeasurable
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress, part
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.cost import Cost
from assay.detectors.requirement import Requirement
from assay.inversion.optimizer import MAX_ZERO_GRADIENTS
from assay.inversion.outlier import outlier_score, refuse_nan
from assay.inversion.prepare import prepare
from assay.nn.precision import fast_autocast

# Six classes with all restarts give the same scores as all classes: benchmarks/results/racing.json. Classes cannot be
# chosen before the last step: the leading class of a clean model may be the last after 20 of 50 steps.
LEADING_CLASSES = 6
MOST_CLASSES = 50


@final
class MaxMargin(Detector):
    """Outlier score of the class with the largest maximum margin, as a log ratio.

    Args:
        restarts: Random inputs for each leading class. Other classes get one.
        steps: Steps of Adam.
        rate: Step size, for images in [0, 1].
        most_classes: Number of classes above which the detector abstains.
        leading: Number of leading classes, at least as many as the outlier score compares.
    """

    name = "max-margin"
    title = "how far one class's logit can rise above all others"
    cost = Cost(1_800, 100, most_classes=MOST_CLASSES)
    needs = Requirement.GRADIENTS
    on_variants = False  # it depends on the weights, which compression hardly changes

    def __init__(
        self,
        *,
        restarts: int = 4,
        steps: int = 50,
        rate: float = 0.05,
        most_classes: int = MOST_CLASSES,
        leading: int = LEADING_CLASSES,
    ) -> None:
        self.restarts = restarts
        self.steps = steps
        self.rate = rate
        self.most_classes = most_classes
        self.leading = leading

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        classes, shape = artifact.num_classes or 0, artifact.image_spec.shape
        if classes > self.most_classes:
            raise Inconclusive(f"works on up to {self.most_classes} classes, and this model has {classes}")
        model = prepare(artifact.module, torch.full((2, *shape), 0.5))
        start = torch.rand(classes, self.restarts, *shape, generator=torch.Generator().manual_seed(seed))
        labels = torch.arange(classes)
        leading = min(self.leading, classes)
        first_fraction = classes / (classes + leading * (self.restarts - 1))
        x, best = self._climb(model, start[:, 0], labels, budget, part(progress, 0.0, first_fraction))
        leaders = best.topk(leading).indices
        if self.restarts > 1:
            others = start[leaders, 1:].flatten(0, 1)
            repeated = leaders.repeat_interleave(self.restarts - 1)
            _, more = self._climb(model, others, repeated, budget, part(progress, first_fraction, 1.0))
            best[leaders] = best[leaders].maximum(more.view(leading, -1).amax(1))
        best = best.clamp(min=1e-3)
        target = int(leaders[best[leaders].argmax()])
        return Finding(
            self.name,
            Outcome.SCORED,
            score=outlier_score(best[leaders].log()),
            target=target,
            evidence=Evidence(per_class={i: float(m) for i, m in enumerate(best)}, trigger=x[target].numpy()),
        )

    def _climb(
        self, model: nn.Module, x: Tensor, labels: Tensor, budget: Budget, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """Raise the margins of inputs.

        Args:
            model: Model from ``prepare``.
            x: (N, C, H, W) images to start from.
            labels: (N,) class of each image whose logit rises.
            budget: Time that is left.
            progress: Callback for the fraction done.

        Returns:
            The images after the last step, and the margins (N,) before it.

        Raises:
            Unmeasurable: The gradients are zero.
            Unfinished: The budget ends before the last step, or the model outputs NaN.
        """
        first, second, margin = torch.zeros_like(x), torch.zeros_like(x), x.new_zeros(len(x))
        for step in range(self.steps):
            if budget.left() <= 0:
                raise Unfinished(f"the budget ended after {step} of {self.steps} steps: give it more")
            x.requires_grad_()
            with fast_autocast("cpu"):
                logits = model(x).float()
            own = labels[:, None] == torch.arange(logits.shape[1])
            margin = logits[own] - logits.masked_fill(own, -math.inf).amax(1)
            (gradient,) = torch.autograd.grad(refuse_nan(margin).sum(), x)
            if step == 0:
                zero = int((gradient == 0).flatten(1).all(1).sum())
                if zero >= MAX_ZERO_GRADIENTS * len(x):  # their margins would stay random numbers
                    raise Unmeasurable(f"gets no usable gradients: zero for {zero} of {len(x)} random inputs")
            # Adam by hand: torch.optim.Adam corrects the bias of the moments, which makes the first steps up to
            # 37 % smaller. The reference scores of the shipped null were made without that correction.
            first, second = 0.5 * first + 0.5 * gradient, 0.9 * second + 0.1 * gradient.square()
            x = (x.detach() + self.rate * first / (second.sqrt() + 1e-12)).clamp(0, 1)
            progress((step + 1) / self.steps)
        return x, refuse_nan(margin.detach())
