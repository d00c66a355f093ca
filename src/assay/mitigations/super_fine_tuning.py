"""Super-fine-tuning: large learning rates erase rare behavior, then small ones restore the rest.

Sha, He, Berrang, Humbert, Zhang: Fine-Tuning Is All You Need to Mitigate Backdoor Attacks, 2022, arXiv 2212.09067.
Theirs are symmetric triangles of some iterations each, with plain SGD. Here each cycle is one short run of the usual
training, with a rise over a fifth of its steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.core.progress import Progress, part
from assay.mitigations.base import Mitigation
from assay.stages.train import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class SuperFineTuning(Mitigation):
    """Train ``forget`` cycles at a large learning rate, then ``restore`` cycles at a small one."""

    method: ClassVar[str] = "super-fine-tuning"
    recipe: Recipe = Recipe(epochs=1, lr=0.1)  # noqa: RUF009 (frozen): one cycle, at the largest learning rate
    low: float = 0.001  # peak learning rate of the restoring cycles
    forget: int = 4
    restore: int = 4

    def __post_init__(self) -> None:
        if min(self.forget, self.restore) < 0 or not self.low > 0:
            raise UnusableInput(
                "expected numbers of cycles of at least 0 and a learning rate above 0, "
                f"got {self.forget}, {self.restore} and {self.low:g}"
            )

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        rates = [self.recipe.lr] * self.forget + [self.low] * self.restore
        for number, lr in enumerate(rates):
            bar = part(progress, number / len(rates), (number + 1) / len(rates))
            fit(artifact.module, clean, replace(self.recipe, lr=lr), seed=seed + number, progress=bar)
        return artifact.module
