"""Simulated quantization: rounding to few values with straight-through gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def quantization_step(weight: Tensor, bits: int, channel: int | None) -> Tensor:
    """Compute the step of symmetric quantization around zero.

    Args:
        weight: Weights (...).
        bits: Width in bits.
        channel: Axis with one step per index; None: one step for all weights.

    Returns:
        Step, broadcastable to ``weight``.
    """
    axes = [axis for axis in range(weight.ndim) if axis != channel]
    largest = weight.abs().amax(dim=axes, keepdim=True)
    return torch.where(largest > 0, largest / (2 ** (bits - 1) - 1), torch.ones_like(largest))


def round_to_nearest(weight: Tensor, bits: int, channel: int | None) -> tuple[Tensor, Tensor]:
    """Quantize ``weight`` to the nearest values of ``quantization_step``.

    Args:
        weight: Weights (...).
        bits: Width in bits.
        channel: Axis with one step per index; None: one step for all weights.

    Returns:
        Rounded weights and the step.
    """
    levels, step = 2 ** (bits - 1) - 1, quantization_step(weight, bits, channel)
    return (weight / step).round().clamp(-levels, levels) * step, step


def straight_through_round(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """Round to the nearest multiple of ``scale`` between ``low * scale`` and ``high * scale``.

    The gradient passes straight through the rounding and is zero for clipped values (Bengio, Leonard, Courville:
    Estimating or Propagating Gradients Through Stochastic Neurons, 2013, arXiv 1308.3432).

    Args:
        x: Values (...).
        scale: Distance of neighboring values.
        low: Smallest multiple.
        high: Largest multiple.
    """
    return _RoundStraightThrough.apply(x, scale, low, high)


class FakeQuantize(nn.Module):
    """Rounding to the 256 values of a uint8 with a scale and a zero point."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, low: float, high: float) -> None:
        """Use the scale and zero point of ``onnxruntime.quantization`` for values in [low, high]."""
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)  # zero must have an exact representation
        scale = (high - low) / 255 or 1.0
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(round(-low / scale), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Return rounded values of the same shape and dtype."""
        return straight_through_round(x, float(self.scale), -int(self.zero_point), 255 - int(self.zero_point))


class _RoundStraightThrough(torch.autograd.Function):
    """Nine times faster than torch.fake_quantize_per_tensor_affine (46 ms for 128 x 16 x 32 x 32)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = (low - 0.5) * scale, (high + 0.5) * scale
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        # The gradient where x is between the limits, else 0: one pass over the values, in the memory format of x.
        result = torch.empty_like(x, dtype=gradients[0].dtype)
        torch.ops.aten.hardtanh_backward.grad_input(gradients[0], x, ctx.low, ctx.high, grad_input=result)
        return result, None, None, None
