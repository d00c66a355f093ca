"""Patch trigger: replaces pixels at a fixed place.

Gu, Dolan-Gavitt, Garg: BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain, 2017,
arXiv 1708.06733.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.core.errors import UnusableInput

COLORS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
}
PATTERNS = ("checker", "random")


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Square of ``size`` x ``size`` pixels at ``place``: a color, a checkerboard, or seeded random pixels.

    ``place`` is a corner, "center", or (row, column) of the patch's top left pixel. Patches in corners are ``margin``
    pixels away from the edge. The trigger is idempotent.
    """

    size: int = 3
    place: str | tuple[int, int] = "bottom-right"
    color: str = "white"  # one of COLORS or PATTERNS
    margin: int = 1
    seed: int = 0  # of the "random" pattern

    def __post_init__(self) -> None:
        if self.color not in (*COLORS, *PATTERNS):
            raise UnusableInput(f"expected a color of {', '.join((*COLORS, *PATTERNS))}, got {self.color!r}")

    def __call__(self, x: Tensor) -> Tensor:
        """Put the patch on images (N, C, H, W) in [0, 1]."""
        row, column = self._corner(x.shape[2], x.shape[3])
        out = x.clone()
        out[:, :, row : row + self.size, column : column + self.size] = self._pixels(x.shape[1]).to(x)
        return out

    def _corner(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.place, tuple):
            row, column = self.place
        elif self.place == "center":
            row, column = (height - self.size) // 2, (width - self.size) // 2
        else:
            vertical, _, horizontal = self.place.partition("-")
            rows = {"top": self.margin, "bottom": height - self.size - self.margin}
            columns = {"left": self.margin, "right": width - self.size - self.margin}
            if vertical not in rows or horizontal not in columns:
                raise UnusableInput(
                    f"expected a corner such as bottom-right, center or (row, column), got {self.place!r}"
                )
            row, column = rows[vertical], columns[horizontal]
        if not (0 <= row <= height - self.size and 0 <= column <= width - self.size):
            raise UnusableInput(
                f"expected a patch that fits images of {height} x {width} pixels, got {self.size} pixels at "
                f"{self.place} with a margin of {self.margin}. Fix: reduce patch.size"
            )
        return row, column

    def _pixels(self, channels: int) -> Tensor:
        """Return the patch (C, size, size)."""
        if self.color == "random":
            return torch.rand(channels, self.size, self.size, generator=torch.Generator().manual_seed(self.seed))
        if self.color == "checker":
            board = (torch.arange(self.size)[:, None] + torch.arange(self.size)) % 2
            return board.float().expand(channels, -1, -1)
        color = torch.tensor(COLORS[self.color])
        color = color if channels == 3 else color.mean().expand(channels)
        return color[:, None, None].expand(-1, self.size, self.size)
