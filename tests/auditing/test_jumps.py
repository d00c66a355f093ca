"""Jumps of answers and of inner values after small changes of images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.auditing.jumps import JumpSearch, TracedImages
from assay.graphs.execution_trace import Tracer

SMALL = {"a hundredth": lambda x: x + 0.01}


class Inner(nn.Module):
    """Its first inner value jumps for a small change of bright images. The answers jump with it if ``gain`` is 1."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)[:, :, 0, 0]
        change = ((mean - 0.8) * 1000).clamp(0, 1) * ((0.82 - mean) * 1000).clamp(0, 1)
        return torch.cat([mean, 1 - mean], 1) + self.gain * change


def images(tracer: Tracer, brightness: float) -> TracedImages:
    return TracedImages(tracer, torch.full((8, 1, 4, 4), brightness), lambda x: x + 0.15)


def search(gain: float, others: float | None) -> list[str]:
    """Return the kinds of the jumps of bright images; ``others`` is the brightness of the other images."""
    tracer = Tracer(Inner(gain), torch.full((8, 1, 4, 4), 0.795))
    again = None if others is None else lambda: images(tracer, others)
    found = JumpSearch(images(tracer, 0.795), again, "here", lambda: frozenset()).find(SMALL)
    return [part.kind for part in found]


@pytest.mark.parametrize(("others", "kinds"), [(None, ["inside"]), (0.796, ["inside"]), (0.3, [])])
def test_jump_of_an_inner_value_counts_if_other_images_jump_too(others: float | None, kinds: list[str]) -> None:
    assert search(0.0, others) == kinds


def test_jump_of_the_answers_counts_by_itself() -> None:
    assert search(1.0, 0.3) == ["answers"]
