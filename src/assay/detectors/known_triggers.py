"""Known triggers: the published ones, tried one by one. Needs no gradients, so it works on any file that runs.

Patches of Gu, Dolan-Gavitt, Garg (2017, arXiv 1708.06733), blends of Chen et al. (2017, arXiv 1712.05526), sinusoids of
Barni, Kallas, Tondi (2019, arXiv 1902.11237), few grey levels of Wang, Zhai, Ma (2022, arXiv 2205.13383). A trigger
that is not among them goes unseen: silence here means little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import final

import torch
from torch import Tensor, nn

from assay.artifact import Artifact
from assay.detectors.base import Budget, Detector, Evidence, Finding, Progress
from assay.errors import Inconclusive
from assay.inversion.standout import standout
from assay.task import Split
from assay.triggers import Blend, Patch

TRIED_ON = 48
"""Clean samples that each trigger is tried on."""


@final
class KnownTriggers(Detector):
    """How far one class stands out by the pictures that known triggers send to it, as log odds."""

    name = "known-triggers"
    title = "published triggers, tried one by one"
    needs = frozenset({"clean"})

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        x = clean.x[:TRIED_ON]
        bank = list(known_triggers(artifact.inputs.shape))
        with torch.no_grad():
            before = artifact.net(x).argmax(1)
        shares = torch.zeros(artifact.num_classes or 0)
        best, name, after = -1.0, "", x
        for number, (label, trigger) in enumerate(bank):
            if budget.left() <= 0:
                raise Inconclusive(f"the budget ended after {number} of {len(bank)} triggers: give it more")
            triggered = trigger(x)
            moved = _moved(artifact.net, triggered, before, len(shares))
            shares = torch.maximum(shares, moved)
            if float(moved.max()) > best:
                best, name, after = float(moved.max()), label, triggered
            progress((number + 1) / len(bank))
        return Finding(
            self.name,
            "ok",
            score=standout(torch.logit(shares, eps=0.02)),
            target=int(shares.argmax()),
            evidence=Evidence(
                numbers={"success": best, "trigger": name, "triggers": len(bank)},
                before=x[:6].numpy(),
                after=after[:6].numpy(),
            ),
        )


def known_triggers(shape: tuple[int, int, int]) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Name and trigger, for pictures of ``shape`` (C, H, W)."""
    side = min(shape[1:])
    for size in sorted({max(2, side // 11), max(3, side // 6)}):
        for place in ("top-left", "top-right", "bottom-left", "bottom-right", "center"):
            for color in ("white", "black", "checker"):
                margin = side // 32
                yield f"{size} px {color} patch, {place}", Patch(size=size, place=place, color=color, margin=margin)
    for cells in (None, 4):
        yield f"noise blended in, {cells or 'every pixel'}", Blend(alpha=0.2, cells=cells)
    for axis in (2, 3):
        yield f"sinusoid along {'rows' if axis == 2 else 'columns'}", _sinusoid(axis)
    yield "eight grey levels", lambda x: (x * 7).round() / 7


def _sinusoid(axis: int) -> Callable[[Tensor], Tensor]:
    def trigger(x: Tensor) -> Tensor:
        n = x.shape[axis]
        wave = 20 / 255 * torch.sin(2 * math.pi * 6 * torch.arange(n) / n)
        return (x + wave.view([-1 if dim == axis else 1 for dim in range(4)])).clamp(0, 1)

    return trigger


def _moved(net: nn.Module, triggered: Tensor, before: Tensor, classes: int) -> Tensor:
    """(K,) share of the pictures of other classes that now get each class."""
    with torch.no_grad():
        after = net(triggered).argmax(1)
    came = torch.bincount(after[after != before], minlength=classes).float()
    others = (len(before) - torch.bincount(before, minlength=classes)).clamp(min=1).float()
    return came / others
