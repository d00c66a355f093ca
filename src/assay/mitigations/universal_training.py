"""Universal adversarial training: whatever faint pattern misleads a net on all pictures, it unlearns while it is found.

Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein: Universal Adversarial Training, AAAI 2020, arXiv 1811.11304. The
patterns take one step up the loss whenever the net takes one down, so it costs two fine-tunings. A backdoor that a
faint pattern over the whole picture turns on is the strongest such pattern that there is. Different here: several
patterns, each picture's drawn anew, and every picture counts without a pattern too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.model import Modality
from assay.core.progress import Progress
from assay.stages.base import spec_of
from assay.stages.train import Recipe, can_be_tuned, cross_entropy, fit


@dataclass(frozen=True, kw_only=True)
class UniversalTraining:
    """On the clean samples that a deployer has: the calibration split, or else the training split."""

    bound: float = 16.0  # of a pattern, in steps of 1/255
    step: float = 2.0  # that each pattern takes at a time, in the same
    patterns: int = 10
    recipe: Recipe = Recipe(epochs=6, lr=0.02)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.bound <= 255:
            raise UnusableInput(f"expected 0 < step <= bound <= 255; got {self.step:g} and {self.bound:g}")
        if self.patterns < 1:
            raise UnusableInput(f"expected at least one pattern; got {self.patterns}")

    @property
    def name(self) -> str:
        return "universal-training"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        """Raises UnusableInput for what is no classifier of pictures."""
        can_be_tuned(build.artifact)
        if build.artifact.num_classes is None or build.artifact.modality is not Modality.IMAGE:
            raise UnusableInput(f"{self.name} is for classifiers of pictures")
        clean, net = build.task.split("calibration", "train"), copy.deepcopy(build.artifact.module).eval()
        generator = torch.Generator().manual_seed(seed)
        bound, step = self.bound / 255, self.step / 255
        drawn = torch.rand(self.patterns, *clean.x.shape[1:], generator=generator)
        patterns = nn.Parameter((2 * drawn - 1) * bound)

        def against_patterns(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            if patterns.grad is not None:  # of the batch before
                with torch.no_grad():
                    patterns.add_(step * patterns.grad.sign()).clamp_(-bound, bound)
                patterns.grad = None
            chosen = torch.randint(self.patterns, (len(x),), generator=generator)
            misled = (x + patterns.to(x.device)[chosen]).clamp(0, 1)
            return cross_entropy(net, torch.cat([x, misled]), torch.cat([y, y]))

        fit(net, clean, self.recipe, seed=seed, progress=progress, objective=against_patterns)
        return build.then(self.name, build.artifact.with_module(net))
