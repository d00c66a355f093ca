"""Normalization of logits by a model's own confidence.

Scores depend on the scale of the logits, and this scale grows with training. Without normalization, a less confident
model looks clean and a confident one backdoored. Rescaling the last layer would hide a backdoor.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

# Median margin after scaling: about that of a well-trained model on ten classes, on which the searches are tuned.
TARGET_MARGIN = 10.0
MARGIN_SAMPLES = 128  # clean samples for the median margin


@final
class UnitMargin(nn.Module):
    """``factor * net(x)``."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net = net
        self.factor = factor
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.factor


def scale_to_unit_margin(model: nn.Module, logits: Tensor) -> UnitMargin:
    """Scale a model to a median margin of ``TARGET_MARGIN`` on clean images.

    The margin is the difference of the two largest logits. The factor is 1 without images, for a single class, or
    without a finite positive margin.

    Args:
        model: Classifier.
        logits: (N, K) logits of ``model`` on clean images.

    Returns:
        Scaled model.
    """
    factor = 1.0
    if len(logits) and logits.shape[1] > 1:
        top = logits.float().topk(2, dim=1).values
        margin = float((top[:, 0] - top[:, 1]).median())
        factor = TARGET_MARGIN / margin if 1e-6 < margin < 1e6 else 1.0
    return UnitMargin(model, factor)
