"""Low-bit randomization: the lowest bits of an image never reach the model.

A special case of bit-depth reduction (Guo, Rana, Cisse, van der Maaten: Countering Adversarial Images using Input
Transformations, 2018, arXiv 1711.00117), against signatures in lowest bits (Goldwasser,
Kim, Vaikuntanathan, Zamir, 2022, arXiv 2204.06974). It has no effect on triggers in higher bits.
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
from assay.nn.input_noise import RandomLowBits


@dataclass(frozen=True, kw_only=True)
class LowBitRandomization(Mitigation):
    """Replace the lowest bits of the input by random bits.

    The seed decides these bits; keep it secret from an attacker.
    """

    method: ClassVar[str] = "low-bit-randomization"
    needs_data: ClassVar[bool] = False
    bits: int = 1  # 1 to 7

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 7:
            raise UnusableInput(f"expected from 1 to 7 bits, got {self.bits}")

    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        return RandomLowBits(artifact.module, artifact.image_spec.shape, self.bits, seed)
