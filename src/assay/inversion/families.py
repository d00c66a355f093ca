"""Families of triggers that a search can describe. One family is not enough: a mask is no warp, and no sinusoid.

Each family holds one trigger per *arm*; parameters have the arm as their first dimension, so that arms can be dropped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

Parameters = tuple[Tensor, ...]  # each (A, ...)


class Family(ABC):
    """How a trigger is parametrized, applied, and how large it is.

    A *free* family has no largest trigger: the search makes it as small as it can while it works, and the size is what
    tells classes apart. A *bounded* one (``pressure`` 0) keeps within a budget by construction, and what tells classes
    apart is how many pictures it moves: right for triggers that clean nets resist at any size that still is a trigger.
    """

    name: ClassVar[str]
    rate: ClassVar[float]  # Adam's learning rate
    pressure: ClassVar[float]  # weight of the size in the loss at the start; 0: bounded

    @abstractmethod
    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        """Parameters of ``arms`` triggers for pictures of ``shape`` (C, H, W)."""

    @abstractmethod
    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (A, N, C, H, W) in [0, 1]: every arm's trigger on every picture."""

    @abstractmethod
    def size(self, parameters: Parameters) -> Tensor:
        """(A,) how much each trigger changes; the unit is the family's own."""


@final
class MaskFamily(Family):
    """A pattern shown through a mask; its size is the mask's area in pixels, relative to the picture's.

    Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao: Neural Cleanse, IEEE S&P 2019.
    """

    name = "mask"
    rate = 0.3
    pressure = 10.0

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        channels, height, width = shape
        mask = torch.full((arms, 1, height, width), -1.5)
        pattern = 0.1 * torch.randn(arms, channels, height, width, generator=generator)
        return mask, pattern

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        mask, pattern = parameters[0].sigmoid(), parameters[1].sigmoid()
        return x[None] + mask[:, None] * (pattern[:, None] - x[None])

    def size(self, parameters: Parameters) -> Tensor:
        return parameters[0].sigmoid().mean(dim=(1, 2, 3))


@final
class AdditiveFamily(Family):
    """One perturbation added to every picture; its size is the root mean square over pixels.

    Targeted universal perturbations, as in Xu, Ersoy, Picek: Universal Soldier, 2023, arXiv 2302.00747.
    """

    name = "additive"
    rate = 0.015
    pressure = 50.0

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.001 * torch.randn(arms, *shape, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        return (x[None] + parameters[0][:, None]).clamp(0, 1)

    def size(self, parameters: Parameters) -> Tensor:
        return parameters[0].square().mean(dim=(1, 2, 3)).add(1e-10).sqrt()


@final
class LinfFamily(Family):
    """One perturbation added to every picture that changes no pixel by more than ``bound``."""

    name = "faint"
    rate = 0.3
    pressure = 0.0
    bound = 8 / 255

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.1 * torch.randn(arms, *shape, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        return (x[None] + self.bound * parameters[0].tanh()[:, None]).clamp(0, 1)

    def size(self, parameters: Parameters) -> Tensor:
        return self.bound * parameters[0].tanh().square().mean(dim=(1, 2, 3)).sqrt()


@final
class FrequencyFamily(Family):
    """A perturbation of few frequencies within a budget on its cosine coefficients, shared out by a softmax.

    The budget is that of one sinusoid of amplitude ``amplitude`` at 32 pixels: more than sinusoidal and frequency
    triggers need (Barni, Kallas, Tondi, 2019, arXiv 1902.11237; Wang et al., 2021, arXiv 2111.10991), less than most
    classes of a clean net yield to. A penalty in place of the softmax fails: Adam moves all coefficients alike.
    """

    name = "frequency"
    rate = 0.3
    pressure = 0.0
    amplitude = 20 / 255  # in [0, 1] units, as in Barni, Kallas, Tondi

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        channels, height, width = shape
        share = 0.1 * torch.randn(arms, 1, height, width, generator=generator)
        return share, 0.1 * torch.randn(arms, channels, height, width, generator=generator)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        rows, columns = dct_matrix(x.shape[2]).to(x), dct_matrix(x.shape[3]).to(x)
        perturbation = rows.T @ self._coefficients(parameters) @ columns
        return (x[None] + perturbation[:, None]).clamp(0, 1)

    def size(self, parameters: Parameters) -> Tensor:
        return self._coefficients(parameters).square().mean(dim=(1, 2, 3)).sqrt()

    def _coefficients(self, parameters: Parameters) -> Tensor:
        share, sign = parameters
        budget = self.amplitude * math.sqrt(share.shape[2] * share.shape[3] / 2)
        return budget * share.flatten(1).softmax(1).view_as(share) * sign.tanh()


@final
class WarpFamily(Family):
    """A smooth field of displacements on a coarse grid, each about ``reach`` of the picture's width at most.

    The trigger of Nguyen, Tran: WaNet, ICLR 2021, arXiv 2102.10369.
    """

    name = "warp"
    rate = 0.3
    pressure = 0.0
    cells = 4
    reach = 1.25 / 32

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.1 * torch.randn(arms, 2, self.cells, self.cells, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        shifts = 2 * self.reach * parameters[0].tanh()  # grid_sample's pictures are 2 wide
        field = F.interpolate(shifts, (height, width), mode="bicubic", align_corners=True)
        lines = torch.meshgrid(torch.linspace(-1, 1, width), torch.linspace(-1, 1, height), indexing="xy")
        grids = torch.stack(lines, dim=-1).to(x) + field.permute(0, 2, 3, 1)
        warped = [
            F.grid_sample(x, grid.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=True)
            for grid in grids
        ]
        return torch.stack(warped)

    def size(self, parameters: Parameters) -> Tensor:
        return (self.reach * parameters[0].tanh()).square().sum(dim=1).mean(dim=(1, 2)).sqrt()


@final
class WindowFamily(Family):
    """A pattern that fills a square window, which stays where it is: one arm looks at one place.

    Brown, Mane, Roy, Abadi, Gilmer: Adversarial Patch, 2017, arXiv 1712.09665, at a fixed place as in Karmon, Zoran,
    Goldberg: LaVAN, ICML 2018, arXiv 1801.02608. A mask that is free to go anywhere starts as a veil over the whole
    picture and overlooks a small patch that acts only when it is whole; a window that holds it does not.
    """

    name = "window"
    rate = 0.5
    pressure = 0.0
    across = 4  # windows side by side

    def __init__(self, *, overlap: bool = True) -> None:
        self.overlap = overlap  # between any two that touch lies another, half over each

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        windows = self.windows(shape)
        pattern = 0.1 * torch.randn(arms, *shape, generator=generator)
        return pattern, windows[torch.arange(arms) % len(windows)]

    def windows(self, shape: tuple[int, int, int]) -> Tensor:
        """(M, 1, H, W), 1 inside and 0 outside; together they cover the picture."""
        _, height, width = shape
        side = max(1, min(height, width) // self.across)
        step = max(1, side // 2 if self.overlap else side)
        tops, lefts = (sorted({*range(0, n - side + 1, step), n - side}) for n in (height, width))
        windows = torch.zeros(len(tops), len(lefts), 1, height, width)
        for row, top in enumerate(tops):
            for column, left in enumerate(lefts):
                windows[row, column, :, top : top + side, left : left + side] = 1
        return windows.flatten(0, 1)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        pattern, window = parameters[0].sigmoid(), parameters[1]
        window = window.detach() + 0 * window  # its gradient is 0: a step moves the pattern only
        return x[None] + window[:, None] * (pattern[:, None] - x[None])

    def size(self, parameters: Parameters) -> Tensor:
        return (parameters[1].detach() + 0 * parameters[1]).mean(dim=(1, 2, 3))


def apply_in_batches(family: Family, parameters: Parameters, x: Tensor, batch: int = 256) -> Tensor:
    """(N, C, H, W) -> the same with the trigger of one arm (1, ...)."""
    with torch.no_grad():
        return torch.cat([family.apply(parameters, x[start : start + batch])[0] for start in range(0, len(x), batch)])


def dct_matrix(n: int) -> Tensor:
    """The orthonormal discrete cosine transform (n, n): rows are frequencies."""
    k, i = torch.arange(n)[:, None], torch.arange(n)[None]
    matrix = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix
