"""Changes of images that a deployed model may meet: 8-bit steps, other ranges of values, patches."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 255  # of an 8-bit image
MIN_CONTRAST = 0.1  # images with a smaller range of values are not stretched: their noise would be


def on_grid(x: Tensor) -> Tensor:
    """Return images with the numbers that an 8-bit image file can hold."""
    return (x * STEPS).round().clamp(0, STEPS) / STEPS


def shifted(x: Tensor, steps: float | Tensor) -> Tensor:
    """Return images with all values moved by a number of 8-bit steps towards the middle of the range.

    Args:
        x: Images on 8-bit steps.
        steps: Number of steps, for all values or for each.
    """
    return (x * STEPS + torch.where(x < 0.5, steps, -steps)) / STEPS


def fractions(x: Tensor, seed: int) -> Tensor:
    """Return a random fraction of a step for each value.

    Args:
        x: Images.
        seed: Seed of the fractions.
    """
    return 0.1 + 0.8 * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))


def shrunk(x: Tensor, fraction: float) -> Tensor:
    """Return images on 8-bit steps with a smaller range of values.

    Args:
        x: Images (N, C, H, W) in [0, 1].
        fraction: Part of the range that is left out at both ends.
    """
    return on_grid(fraction + (1 - 2 * fraction) * x)


def stretched(x: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose values reach from 0 to 1; an image of one color stays as it is."""
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return torch.where(high - low > MIN_CONTRAST, on_grid((x - low) / (high - low).clamp_min(MIN_CONTRAST)), x)


def with_patches(x: Tensor, seed: int) -> Tensor:
    """Return the images with a patch in a corner: the same random one on three images, then a checkerboard.

    Args:
        x: Images (N, C, H, W).
        seed: Seed of the random patch.
    """
    side = max(2, min(x.shape[2:]) // 8)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, STEPS + 1, (x.shape[1], side, side), generator=generator) / STEPS
    checkerboard = ((torch.arange(side)[:, None] + torch.arange(side)) % 2).expand_as(noise).float()
    patched = x.clone()
    for image, patch in zip(patched, (noise, noise, noise, checkerboard), strict=False):
        image[:, -side:, -side:] = patch
    return patched
