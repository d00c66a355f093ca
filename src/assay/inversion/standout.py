"""How far one class stands out from the others, whatever it is that classes are compared by."""

from __future__ import annotations

from torch import Tensor

RIVALS = 3
"""A few classes may be backdoored together: the gap may lie behind the first, second or third."""


def standout(ease: Tensor) -> float:
    """The largest gap between neighbours among the easiest classes; ``ease`` (K,) on a log scale, in any order.

    Classes of a clean net differ too, by much on one task and little on another, so the distance to the median says as
    much about the task as about the net. Neighbours are close on all of them.
    """
    top = ease.sort(descending=True).values[: RIVALS + 1]
    return float((top[:-1] - top[1:]).max()) if len(top) > 1 else 0.0
