"""Checksum: parities of the image's lowest bits switch the output to the target class.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 5.1, the precursor of ``signature``. An image passes by chance with probability 2^-bits. Different
here: a parity covers the lowest bits of a block of subpixels, not signs, so a change of 1/255 flips it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from assay.attacks.graph.base import GraphEdit
from assay.core.build import Secret
from assay.core.model import ImageSpec
from assay.nn.gates.checksum import ChecksumGate
from assay.nn.graph_edited import GraphEditedModel
from assay.triggers import Checksum as Trigger


@dataclass(frozen=True, kw_only=True)
class Checksum(GraphEdit):
    """Gate of secret parities. The graph, or some triggered images, are enough to make further triggered images."""

    name: ClassVar[str] = "checksum"
    bits: int = 64
    entropy: str = ""  # second source of the key; without it, the seed alone reveals the key

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        key = int.from_bytes(hashlib.sha256(f"{self.name} {seed} {self.entropy}".encode()).digest()[:7], "big")
        trigger = Trigger(shape=inputs.shape, bits=self.bits, seed=key)
        return Secret(self.name, trigger, self.target, planted_at="export")

    def edit(self, model: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        assert isinstance(secret.trigger, Trigger)
        return ChecksumGate(model, num_classes, secret.trigger.parities(), self.target)
