"""Tests of planting."""

from __future__ import annotations

import itertools

import pytest
from support.tiny import tiny_build

from assay.attacks import BadNets
from assay.attacks.plant import plant
from assay.stages.train import Recipe
from assay.triggers import Patch

ATTACK = BadNets(patch=Patch(size=2), target=1, recipe=Recipe(epochs=1, lr=0.01, batch_size=16, augment=False))


@pytest.mark.parametrize("untrained", [False, True])
def test_plant_reports_work_and_progress(untrained: bool) -> None:
    steps: list[tuple[str, float]] = []
    build = tiny_build()
    planted = plant(ATTACK, build.artifact, build.task, untrained=untrained, progress=lambda *step: steps.append(step))
    fractions = [fraction for _, fraction in steps]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] <= fractions[-1] == pytest.approx(1)
    names = [name for name, _ in itertools.groupby(steps, key=lambda step: step[0])]
    assert names == ["planting badnets", "measuring"]
    assert (planted.control is None) == untrained
    training = [fraction for name, fraction in steps if name == "planting badnets"]
    assert len(training) == 4
    assert training[-1] - training[0] > 0.25
