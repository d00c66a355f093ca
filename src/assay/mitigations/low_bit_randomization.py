"""Low-bit randomization: what a picture carries in its lowest bits never reaches the net.

A special case of input transformations (Guo, Rana, Cisse, van der Maaten: Countering Adversarial Images using Input
Transformations, 2018, arXiv 1711.00117, which reduce the bit depth), for signatures in lowest bits (Goldwasser, Kim,
Vaikuntanathan, Zamir, 2022, arXiv 2204.06974). It does nothing against what is read from higher bits.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.nn.input_noise import RandomLowBits
from assay.stages.base import spec_of
from assay.stages.train import can_be_tuned


@dataclass(frozen=True, kw_only=True)
class LowBitRandomization:
    """Needs no data. The bits that take their place are drawn by the seed, and should be nobody else's."""

    bits: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 7:
            raise UnusableInput(f"expected from 1 to 7 bits; got {self.bits}")

    @property
    def name(self) -> str:
        return "low-bit-randomization"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        artifact = build.artifact
        can_be_tuned(artifact)
        net = RandomLowBits(copy.deepcopy(artifact.module), artifact.image_spec.shape, self.bits, seed)
        return build.then(self.name, artifact.with_module(net.eval()))
