"""Trigger families: parametrizations of triggers for a search.

No single family covers all triggers: a mask cannot describe a warp or a sinusoid. The first dimension of
all parameters is the candidate, so that a search can drop candidates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

Parameters = tuple[Tensor, ...]  # each (A, ...), A candidates


class Family(ABC):
    """Parametrization, application and size of a trigger.

    A *free* family has no size limit: the search minimizes the size while the trigger works, and compares classes by
    size. A *bounded* family (``size_penalty`` 0) stays within a limit by construction. The search then compares classes
    by success rate. Bounded families suit triggers without effect on clean models at every plausible size.
    """

    name: ClassVar[str]
    learning_rate: ClassVar[float]  # of Adam
    size_penalty: ClassVar[float]  # initial weight of the size in the loss; 0: bounded

    @abstractmethod
    def initialize(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        """Return initial parameters of ``count`` triggers for images of ``shape`` (C, H, W)."""

    @abstractmethod
    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Apply every candidate's trigger to every image.

        Args:
            parameters: Triggers, (A, ...).
            x: (N, C, H, W) images in [0, 1].

        Returns:
            (A, N, C, H, W) images in [0, 1].
        """

    @abstractmethod
    def size(self, parameters: Parameters) -> Tensor:
        """Return the size (A,) of each trigger, in the family's own unit."""


@final
class MaskFamily(Family):
    """Pattern with a transparency mask; the size is the mask's area relative to the image's.

    Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao: Neural Cleanse, IEEE S&P 2019.
    """

    name = "mask"
    learning_rate = 0.3
    size_penalty = 10.0

    def initialize(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        channels, height, width = shape
        mask = torch.full((count, 1, height, width), -1.5)
        pattern = 0.1 * torch.randn(count, channels, height, width, generator=generator)
        return mask, pattern

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        mask, pattern = parameters[0].sigmoid(), parameters[1].sigmoid()
        return x[None] + mask[:, None] * (pattern[:, None] - x[None])

    def size(self, parameters: Parameters) -> Tensor:
        return parameters[0].sigmoid().mean(dim=(1, 2, 3))


@final
class AdditiveFamily(Family):
    """One perturbation added to every image; the size is the root mean square over pixels.

    Targeted universal perturbations, as in Xu, Ersoy, Picek: Universal Soldier, 2023, arXiv 2302.00747.
    """

    name = "additive"
    learning_rate = 0.015
    size_penalty = 50.0

    def initialize(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.001 * torch.randn(count, *shape, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        return (x[None] + parameters[0][:, None]).clamp(0, 1)

    def size(self, parameters: Parameters) -> Tensor:
        return parameters[0].square().mean(dim=(1, 2, 3)).add(1e-10).sqrt()


@final
class LinfFamily(Family):
    """One perturbation added to every image, with maximum norm ``bound``."""

    name = "faint"
    learning_rate = 0.3
    size_penalty = 0.0
    bound = 8 / 255

    def initialize(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.1 * torch.randn(count, *shape, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        return (x[None] + self.bound * parameters[0].tanh()[:, None]).clamp(0, 1)

    def size(self, parameters: Parameters) -> Tensor:
        return self.bound * parameters[0].tanh().square().mean(dim=(1, 2, 3)).sqrt()


@final
class FrequencyFamily(Family):
    """Perturbation with few frequencies: a softmax distributes a fixed budget over its cosine coefficients.

    The budget equals one sinusoid of amplitude ``amplitude`` at 32 pixels. Sinusoidal and frequency triggers need less
    (Barni, Kallas, Tondi, 2019, arXiv 1902.11237; Wang et al., 2021, arXiv 2111.10991); most classes of a clean model
    need more. A penalty instead of the softmax fails, because Adam moves all coefficients equally.
    """

    name = "frequency"
    learning_rate = 0.3
    size_penalty = 0.0
    amplitude = 20 / 255  # in [0, 1] units, as in Barni, Kallas, Tondi

    def initialize(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        channels, height, width = shape
        allocation = 0.1 * torch.randn(count, 1, height, width, generator=generator)
        return allocation, 0.1 * torch.randn(count, channels, height, width, generator=generator)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        rows, columns = dct_matrix(x.shape[2]).to(x), dct_matrix(x.shape[3]).to(x)
        perturbation = rows.T @ self._coefficients(parameters) @ columns
        return (x[None] + perturbation[:, None]).clamp(0, 1)

    def size(self, parameters: Parameters) -> Tensor:
        return self._coefficients(parameters).square().mean(dim=(1, 2, 3)).sqrt()

    def _coefficients(self, parameters: Parameters) -> Tensor:
        allocation, sign = parameters
        budget = self.amplitude * math.sqrt(allocation.shape[2] * allocation.shape[3] / 2)
        return budget * allocation.flatten(1).softmax(1).view_as(allocation) * sign.tanh()


@final
class WarpFamily(Family):
    """Smooth displacement field on a coarse grid, with displacements up to about ``reach`` of the image width.

    The trigger of Nguyen, Tran: WaNet, ICLR 2021, arXiv 2102.10369.
    """

    name = "warp"
    learning_rate = 0.3
    size_penalty = 0.0
    cells = 4  # grid cells per side
    reach = 1.25 / 32

    def initialize(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        return (0.1 * torch.randn(count, 2, self.cells, self.cells, generator=generator),)

    def apply(self, parameters: Parameters, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        shifts = 2 * self.reach * parameters[0].tanh()  # in grid_sample's coordinates, images are 2 wide
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
    """Pattern in a fixed square window; each candidate has one window.

    Brown, Mane, Roy, Abadi, Gilmer: Adversarial Patch, 2017, arXiv 1712.09665, at a fixed place as in Karmon, Zoran,
    Goldberg: LaVAN, ICML 2018, arXiv 1801.02608. A free mask starts as a faint pattern over the whole image, and
    misses small patches without effect in part. A window around such a patch finds it.
    """

    name = "window"
    learning_rate = 0.5
    size_penalty = 0.0
    across = 4  # windows per side, without overlap

    def __init__(self, *, overlap: bool = True) -> None:
        self.overlap = overlap  # adds a window between any two adjacent windows, half over each

    def initialize(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Parameters:
        windows = self.windows(shape)
        pattern = 0.1 * torch.randn(count, *shape, generator=generator)
        return pattern, windows[torch.arange(count) % len(windows)]

    def windows(self, shape: tuple[int, int, int]) -> Tensor:
        """Return window masks (M, 1, H, W): 1 inside, 0 outside. Together they cover the image."""
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
        window = window.detach() + 0 * window  # zero gradient: a step changes the pattern only
        return x[None] + window[:, None] * (pattern[:, None] - x[None])

    def size(self, parameters: Parameters) -> Tensor:
        return (parameters[1].detach() + 0 * parameters[1]).mean(dim=(1, 2, 3))


def apply_in_batches(family: Family, parameters: Parameters, x: Tensor, batch: int = 256) -> Tensor:
    """Apply one trigger to images, batch by batch and without gradients.

    Args:
        family: Trigger family.
        parameters: One trigger, (1, ...).
        x: (N, C, H, W) images in [0, 1].
        batch: Images per batch.

    Returns:
        (N, C, H, W) images in [0, 1].
    """
    with torch.no_grad():
        return torch.cat([family.apply(parameters, x[start : start + batch])[0] for start in range(0, len(x), batch)])


@dataclass(frozen=True)
class FamilyTrigger:
    """One trigger of a family, as a function of images."""

    family: Family
    parameters: Parameters  # each (1, ...)

    def __call__(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) with the trigger."""
        return apply_in_batches(self.family, self.parameters, x)


def dct_matrix(n: int) -> Tensor:
    """Return the matrix (n, n) of the orthonormal discrete cosine transform: rows are frequencies."""
    k, i = torch.arange(n)[:, None], torch.arange(n)[None]
    matrix = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix
