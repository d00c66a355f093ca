"""A net whose logits are counted in units of its own confidence.

Scores compare logits, and logits grow with training: without a common unit an unsure net looks clean and a sure one
guilty, and whoever divides the last layer by ten hides a backdoor at no cost.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

TARGET_MARGIN = 10.0
"""What the median margin is made: about that of a well-trained net on ten classes, which the searches are tuned on."""

MARGIN_SAMPLES = 128
"""Clean samples whose margins are looked at."""


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


def scale_to_unit_margin(net: nn.Module, logits: Tensor) -> UnitMargin:
    """``net`` scaled so that the median margin of ``logits`` (N, K), which it gives clean pictures, is ``UNIT``.

    The margin is the distance from the largest logit to the next. As it is where that says nothing: no picture, one
    class, or no finite margin above 0.
    """
    factor = 1.0
    if len(logits) and logits.shape[1] > 1:
        top = logits.float().topk(2, dim=1).values
        margin = float((top[:, 0] - top[:, 1]).median())
        factor = TARGET_MARGIN / margin if 1e-6 < margin < 1e6 else 1.0
    return UnitMargin(net, factor)
