"""Super-fine-tuning: learning rates so large that a net forgets what few inputs taught it, then small ones.

Sha, He, Berrang, Humbert, Zhang: Fine-Tuning Is All You Need to Mitigate Backdoor Attacks, 2022, arXiv 2212.09067.
Theirs are symmetric triangles of some iterations each, with plain SGD; here each cycle is one short run of the usual
training, which rises over a fifth of its steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.progress import Progress, part
from assay.stages.base import spec_of
from assay.stages.train import Recipe, can_be_tuned, fit


@dataclass(frozen=True, kw_only=True)
class SuperFineTuning:
    """On the clean samples that a deployer has: the calibration split, or else the training split.

    ``recipe``: one cycle, at its largest learning rate; ``forget`` cycles of it, then ``restore`` at ``low``.
    """

    recipe: Recipe = Recipe(epochs=1, lr=0.1)  # noqa: RUF009 (frozen)
    low: float = 0.001  # learning rate at the peak of the cycles that restore
    forget: int = 4
    restore: int = 4

    def __post_init__(self) -> None:
        if min(self.forget, self.restore) < 0 or not self.low > 0:
            raise UnusableInput(
                f"expected numbers of cycles from 0 on and a learning rate above 0; got {self.forget}, {self.restore} "
                f"and {self.low:g}"
            )

    @property
    def name(self) -> str:
        return "super-fine-tuning"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        can_be_tuned(build.artifact)
        clean, net = build.task.split("calibration", "train"), copy.deepcopy(build.artifact.module).eval()
        cycles = [self.recipe.lr] * self.forget + [self.low] * self.restore
        for number, lr in enumerate(cycles):
            bar = part(progress, number / len(cycles), (number + 1) / len(cycles))
            fit(net, clean, replace(self.recipe, lr=lr), seed=seed + number, progress=bar)
        return build.then(self.name, build.artifact.with_module(net))
