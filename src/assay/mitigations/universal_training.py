"""Universal adversarial training: train against faint, image-independent patterns.

Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein: Universal Adversarial Training, AAAI 2020, arXiv 1811.11304. Each
model step down the loss comes with a step of the patterns up the loss. It costs as much as two fine-tunings. A
backdoor with a faint whole-image trigger is the strongest such pattern. Different here: several patterns, drawn anew
for each image, and every image is also trained without a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, Modality
from assay.core.progress import Progress
from assay.mitigations.base import Mitigation
from assay.stages.train import FitOptions, Recipe, cross_entropy, fit


@dataclass(frozen=True, kw_only=True)
class UniversalTraining(Mitigation):
    """Fine-tune an image classifier on clean and on perturbed images."""

    method: ClassVar[str] = "universal-training"
    bound: float = 16.0  # L-infinity bound of a pattern, in steps of 1/255
    step: float = 2.0  # of a pattern per batch, in steps of 1/255
    patterns: int = 10
    recipe: Recipe = Recipe(epochs=6, lr=0.02)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.bound <= 255:
            raise UnusableInput(f"expected 0 < step <= bound <= 255, got step {self.step:g} and bound {self.bound:g}")
        if self.patterns < 1:
            raise UnusableInput(f"expected at least one pattern, got {self.patterns}")

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        if artifact.modality is not Modality.IMAGE:
            raise UnusableInput(f"expected an image classifier for {self.name}, got a {artifact.modality} classifier")
        generator = torch.Generator().manual_seed(seed)
        bound, step = self.bound / 255, self.step / 255
        uniform = torch.rand(self.patterns, *clean.x.shape[1:], generator=generator)
        patterns = nn.Parameter((2 * uniform - 1) * bound)

        def adversarial_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            if patterns.grad is not None:  # from the previous batch
                with torch.no_grad():
                    patterns.add_(step * patterns.grad.sign()).clamp_(-bound, bound)
                patterns.grad = None
            choice = torch.randint(self.patterns, (len(x),), generator=generator)
            perturbed = (x + patterns.to(x.device)[choice]).clamp(0, 1)
            return cross_entropy(model, torch.cat([x, perturbed]), torch.cat([y, y]))

        options = FitOptions(objective=adversarial_loss)
        fit(artifact.module, clean, self.recipe, seed=seed, progress=progress, options=options)
        return artifact.module
