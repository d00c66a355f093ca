"""Smoothing: average the outputs over noisy copies of an image.

Cohen, Rosenfeld, Kolter: Certified Adversarial Robustness via Randomized Smoothing, 2019, arXiv 1902.02918; as
immunization at inference time, Goldwasser, Kim, Vaikuntanathan, Zamir, 2022, arXiv 2204.06974, section 7. It helps only
against triggers smaller than the noise. Different here: the noise is the same for every image, and probabilities are
averaged, not votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.mitigations.base import Mitigation
from assay.nn.input_noise import Smoothed


@dataclass(frozen=True, kw_only=True)
class Smoothing(Mitigation):
    """Average the probabilities over noisy ``copies`` of each image, at ``copies`` times the cost."""

    method: ClassVar[str] = "smoothing"
    needs_data: ClassVar[bool] = False
    sigma: float = 4.0  # standard deviation of the noise, in steps of 1/255
    copies: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 255 or not 1 <= self.copies <= 256:
            raise UnusableInput(
                f"expected sigma in (0, 255] and from 1 to 256 copies, got {self.sigma:g} and {self.copies}"
            )

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        return Smoothed(artifact.module, artifact.image_spec.shape, self.sigma / 255, self.copies, seed)
