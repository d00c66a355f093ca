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
    """How a trigger is parametrized, applied, and how large it is."""

    name: ClassVar[str]
    rate: ClassVar[float]  # Adam's learning rate
    pressure: ClassVar[float]  # weight of the size in the loss at the start

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
class FrequencyFamily(Family):
    """A perturbation of few frequencies: sparse in the discrete cosine transform, colours of a frequency counted as one.

    After Wang, Yao, Xu, An, Tong, Wang: An Invisible Black-box Backdoor Attack through Frequency Domain, 2021,
    arXiv 2111.10991, read backwards.
    """

    name = "frequency"
    rate = 0.03
    pressure = 3.0

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.001 * torch.randn(arms, *shape, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        rows = dct_matrix(x.shape[2]).to(x)
        columns = dct_matrix(x.shape[3]).to(x)
        perturbation = rows.T @ parameters[0] @ columns
        return (x[None] + perturbation[:, None]).clamp(0, 1)

    def size(self, parameters: Parameters) -> Tensor:
        groups = parameters[0].square().sum(dim=1).add(1e-8).sqrt()  # (A, H, W)
        return groups.sum(dim=(1, 2)) / math.sqrt(groups.shape[1] * groups.shape[2])


@final
class WarpFamily(Family):
    """A smooth field of displacements on a coarse grid; its size is the root mean square shift in pixels.

    The trigger of Nguyen, Tran: WaNet, ICLR 2021, arXiv 2102.10369.
    """

    name = "warp"
    rate = 0.1
    pressure = 0.3
    cells = 6

    def start(self, arms: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.1 * torch.randn(arms, 2, self.cells, self.cells, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        field = F.interpolate(parameters[0], (height, width), mode="bicubic", align_corners=True)  # in pixels
        y, x_ = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
        grid = torch.stack((x_, y), dim=-1) + field.permute(0, 2, 3, 1) * scale
        return torch.stack(
            [F.grid_sample(x, g.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=True) for g in grid]
        )

    def size(self, parameters: Parameters) -> Tensor:
        return parameters[0].square().sum(dim=1).mean(dim=(1, 2)).add(1e-8).sqrt()


def dct_matrix(n: int) -> Tensor:
    """The orthonormal discrete cosine transform (n, n): rows are frequencies."""
    k, i = torch.arange(n)[:, None], torch.arange(n)[None]
    matrix = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix
