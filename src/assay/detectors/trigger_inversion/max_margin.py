"""Maximum margin: the class whose logit can exceed all others furthest, over all possible inputs. Needs no data.

Wang, Xiang, Miller, Kesidis: MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor Pattern Types
Using a Maximum Margin Statistic, IEEE S&P 2024, arXiv 2205.06900.

Here all classes and restarts are in one batch, with 50 steps of Adam. A log ratio against clean reference models
replaces the gamma fit over the other classes.
"""

from __future__ import annotations

import math
from typing import final

import torch

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, Unfinished, Unmeasurable
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.inversion.optimizer import MAX_ZERO_GRADIENTS
from assay.inversion.outlier import outlier_score, refuse_nan
from assay.inversion.prepare import prepare
from assay.nn.precision import fast_autocast


@final
class MaxMargin(Detector):
    """Outlier score of the class with the largest maximum margin, as a log ratio.

    Args:
        restarts: Random inputs for each class.
        steps: Steps of Adam.
        rate: Step size, for images in [0, 1].
        most_classes: Number of classes above which the detector abstains.
    """

    name = "max-margin"
    title = "how far one class's logit can rise above all others"
    needs = Requirement.GRADIENTS
    on_variants = False  # it depends on the weights, which compression hardly changes

    def __init__(self, *, restarts: int = 4, steps: int = 50, rate: float = 0.05, most_classes: int = 50) -> None:
        self.restarts = restarts
        self.steps = steps
        self.rate = rate
        self.most_classes = most_classes

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        classes, shape = artifact.num_classes or 0, artifact.image_spec.shape
        if classes > self.most_classes:
            raise Inconclusive(f"works on up to {self.most_classes} classes, and this model has {classes}")
        model = prepare(artifact.module, torch.full((2, *shape), 0.5))
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(classes * self.restarts, *shape, generator=generator)
        own = torch.nn.functional.one_hot(torch.arange(classes).repeat_interleave(self.restarts), classes).bool()
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps):
            if budget.left() <= 0:
                raise Unfinished(f"the budget ended after {step} of {self.steps} steps: give it more")
            x.requires_grad_()
            with fast_autocast("cpu"):
                logits = model(x).float()
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
        best = refuse_nan(margin.detach()).view(classes, self.restarts).amax(1).clamp(min=1e-3)
        target = int(best.argmax())
        image = x.view(classes, self.restarts, *shape)[target, 0]
        return Finding(
            self.name,
            Outcome.SCORED,
            score=outlier_score(best.log()),
            target=target,
            evidence=Evidence(per_class={i: float(m) for i, m in enumerate(best)}, trigger=image.numpy()),
        )
