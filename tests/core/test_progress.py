from __future__ import annotations

import pytest

from assay.core.progress import named, part


def test_parts_lie_within_the_whole_and_within_each_other() -> None:
    heard: list[float] = []
    outer = part(heard.append, 0.2, 0.6)
    for bar in (part(outer, 0.0, 0.5), part(outer, 0.5, 1.0)):
        bar(0.0)
        bar(1.0)
    assert heard == pytest.approx([0.2, 0.4, 0.4, 0.6])


def test_a_name_goes_with_every_share() -> None:
    heard: list[tuple[str, float]] = []
    named(lambda what, share: heard.append((what, share)), "training")(0.5)
    assert heard == [("training", 0.5)]
