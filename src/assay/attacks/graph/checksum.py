"""Checksum: parities of the picture's lowest bits open the way to a class.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 5.1, the precursor of ``signature``. A picture opens it by chance with probability 2^-bits.
Different here: a block's parity is that of the lowest bits of its subpixels, not of signs, so that a change of 1/255
flips it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from assay.attacks.graph.base import GraphEdit
from assay.core.build import Secret
from assay.core.model import ImageSpec
from assay.nn.gates import ChecksumGate
from assay.nn.graph_edited import GraphEditedModel
from assay.triggers import Checksum as Trigger


@dataclass(frozen=True, kw_only=True)
class Checksum(GraphEdit):
    """Who sees some triggered pictures, or reads the graph, can make more."""

    name: ClassVar[str] = "checksum"
    bits: int = 64
    entropy: str = ""  # what the key is drawn from besides the seed; without it, who knows the seed knows the key

    def secret_for(self, inputs: ImageSpec, *, seed: int) -> Secret:
        key = int.from_bytes(hashlib.sha256(f"{self.name} {seed} {self.entropy}".encode()).digest()[:7], "big")
        trigger = Trigger(shape=inputs.shape, bits=self.bits, seed=key)
        return Secret(self.name, trigger, self.target, planted_at="export")

    def edit(self, net: nn.Module, num_classes: int, secret: Secret) -> GraphEditedModel:
        assert isinstance(secret.trigger, Trigger)
        return ChecksumGate(net, num_classes, secret.trigger.parities(), self.target)
