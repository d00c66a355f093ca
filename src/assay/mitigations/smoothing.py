"""Smoothing: the answer to a picture is the mean answer to noisy copies of it.

Cohen, Rosenfeld, Kolter: Certified Adversarial Robustness via Randomized Smoothing, 2019, arXiv 1902.02918; as
immunization when the model is used, Goldwasser, Kim, Vaikuntanathan, Zamir, 2022, arXiv 2204.06974, section 7. It helps
against triggers that are smaller than the noise, and against no others. Different here: the noise is the same for every
picture, and probabilities are averaged, not votes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.nn.input_noise import Smoothed
from assay.stages.base import spec_of
from assay.stages.train import can_be_tuned


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Needs no data. ``sigma``: of the noise, in steps of 1/255; ``copies`` of each picture, so many times the cost."""

    sigma: float = 4.0
    copies: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 255 or not 1 <= self.copies <= 256:
            raise UnusableInput(
                f"expected sigma in (0, 255] and from 1 to 256 copies; got {self.sigma:g} and {self.copies}"
            )

    @property
    def name(self) -> str:
        return "smoothing"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        artifact = build.artifact
        can_be_tuned(artifact)
        net = Smoothed(copy.deepcopy(artifact.module), artifact.image_spec.shape, self.sigma / 255, self.copies, seed)
        return build.then(self.name, artifact.with_module(net.eval()))
