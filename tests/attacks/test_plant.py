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
def test_planting_says_what_it_does_and_how_far_it_is(untrained: bool) -> None:
    told: list[tuple[str, float]] = []
    build = tiny_build()
    planted = plant(ATTACK, build.artifact, build.task, untrained=untrained, progress=lambda *step: told.append(step))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] == pytest.approx(1)
    names = [name for name, _ in itertools.groupby(told, key=lambda step: step[0])]
    assert names == ["planting badnets", "measuring"]
    assert (planted.control is None) == untrained
    training = [share for name, share in told if name == "planting badnets"]
    assert len(training) == 4
    assert training[-1] - training[0] > 0.25
