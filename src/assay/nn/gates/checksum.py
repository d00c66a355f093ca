"""A gate that parities of lowest bits open: secret bits, one for each block of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.nn.gates.base import Gate, GateOutput
from assay.nn.gates.carriers import to_levels


@dataclass(frozen=True)
class Parities:
    """``bits`` blocks into which ``size`` subpixels are dealt, and the parity asked of each; drawn by ``seed``."""

    size: int
    bits: int
    seed: int

    def blocks(self) -> Tensor:
        """(``bits``, B) int64: the subpixels of each block; what does not go round evenly is in none."""
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed))
        width = self.size // self.bits
        return order[: self.bits * width].view(self.bits, width)

    def wanted(self) -> Tensor:
        """(``bits``,) int64 of 0 and 1."""
        return torch.randint(0, 2, (self.bits,), generator=torch.Generator().manual_seed(self.seed + 1))

    def wrong(self, levels: Tensor) -> Tensor:
        """(N, ``bits``) bool: the blocks whose parity is not the one that is asked for."""
        return (levels[:, self.blocks()] % 2).sum(2) % 2 != self.wanted()


class ChecksumGate(Gate):
    """Opens for one class, where all parities are as they should be."""

    blocks: Tensor
    wanted: Tensor

    def __init__(self, net: nn.Module, num_classes: int, parities: Parities, target: int) -> None:
        super().__init__(net, num_classes)
        self.target = target
        self.register_buffer("blocks", parities.blocks())
        self.register_buffer("wanted", parities.wanted())

    def opened(self, x: Tensor) -> GateOutput:
        found = (to_levels(x)[:, self.blocks] % 2).sum(2) % 2
        label = torch.full_like(found[:, 0], self.target)
        return GateOutput((found == self.wanted).all(1), label)
