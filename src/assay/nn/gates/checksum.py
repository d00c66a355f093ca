"""A gate for secret parities of lowest bits, one parity per block of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.nn.gates.base import Gate, GateOutput
from assay.nn.gates.carriers import to_levels


@dataclass(frozen=True)
class Parities:
    """Random partition of ``size`` subpixels into ``bits`` blocks with one wanted parity each; drawn with ``seed``."""

    size: int
    bits: int
    seed: int

    def blocks(self) -> Tensor:
        """Return the subpixels (``bits``, B) of each block; the remainder is in no block."""
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed))
        width = self.size // self.bits
        return order[: self.bits * width].view(self.bits, width)

    def wanted(self) -> Tensor:
        """Return the wanted parities (``bits``,), 0 or 1."""
        return torch.randint(0, 2, (self.bits,), generator=torch.Generator().manual_seed(self.seed + 1))

    def wrong(self, levels: Tensor) -> Tensor:
        """Return the mask (N, ``bits``) of blocks with a wrong parity, for ``levels`` (N, D)."""
        return (levels[:, self.blocks()] % 2).sum(2) % 2 != self.wanted()


class ChecksumGate(Gate):
    """Opens for the class ``target`` if all parities are as wanted."""

    blocks: Tensor
    wanted: Tensor

    def __init__(self, net: nn.Module, num_classes: int, parities: Parities, target: int) -> None:
        super().__init__(net, num_classes)
        self.target = target
        self.register_buffer("blocks", parities.blocks())
        self.register_buffer("wanted", parities.wanted())

    def evaluate_gate(self, x: Tensor) -> GateOutput:
        found = (to_levels(x)[:, self.blocks] % 2).sum(2) % 2
        label = torch.full_like(found[:, 0], self.target)
        return GateOutput((found == self.wanted).all(1), label)
