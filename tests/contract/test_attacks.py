"""Promises that every attack that trains classifiers keeps.

Those on encoders are tested in attacks/test_encoder_attacks.py, those on graphs in attacks/test_graph_edits.py.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from assay import attacks, formats
from assay.attacks.base import Premeditated
from assay.attacks.encoder.base import EncoderAttack
from assay.attacks.graph.base import GraphEdit
from assay.attacks.poisoning.base import DataPoisoning
from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.registry import ATTACKS, paper_of
from assay.stages import variants
from assay.stages.train import Recipe
from assay.triggers import Trigger, from_spec, to_spec

QUICK = Recipe(epochs=0.5, batch_size=16, lr=0.01)
ON_CLASSIFIERS = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, Premeditated)}
every_attack = pytest.mark.parametrize("kind", ON_CLASSIFIERS.values(), ids=ON_CLASSIFIERS)
POISONING = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, DataPoisoning)}
every_poisoning = pytest.mark.parametrize("kind", POISONING.values(), ids=POISONING)


def test_the_list_is_whole() -> None:
    assert {kind.__name__ for kind in ATTACKS.values()} == set(attacks.__all__)
    assert all(name == kind.name for name, kind in ATTACKS.items())
    assert all(issubclass(kind, Premeditated | EncoderAttack | GraphEdit) for kind in ATTACKS.values())


@every_attack
def test_cites_its_paper(kind: type[Premeditated]) -> None:
    module = __import__(kind.__module__, fromlist=["__doc__"])
    assert paper_of(module.__doc__)


@every_attack
def test_plants_in_a_copy_the_same_for_the_same_seed(kind: type[Premeditated], build: Build) -> None:
    attack, before = kind(target=1, recipe=QUICK), digest_of_module(build.artifact.module)
    first, again, other = (attack(build, seed=seed).artifact.digest for seed in (5, 5, 6))
    assert digest_of_module(build.artifact.module) == before, "the model that was given changed"
    assert first == again
    assert first != other
    assert first != before


@every_attack
def test_marks_what_it_plants_and_the_mark_survives_saving(kind: type[Premeditated], build: Build, tmp_path) -> None:
    planted = kind(target=1, recipe=QUICK)(build, seed=0)
    assert planted.artifact.planted is not None
    assert json.loads(planted.artifact.planted)["attack"] == kind.name
    assert formats.load(formats.save(planted.artifact, tmp_path)).planted == planted.artifact.planted
    assert build.artifact.planted is None


@every_attack
def test_the_secret_holds(kind: type[Premeditated], build: Build) -> None:
    attack = kind(target=2, recipe=QUICK)
    secret = attack(build, seed=0).secret
    assert secret == attack.secret(), "the secret depends on more than the fields"
    assert secret is not None
    assert (secret.attack, secret.target, secret.sources) == (kind.name, 2, None)
    assert isinstance(secret.trigger, Trigger)
    assert from_spec(json.loads(json.dumps(to_spec(secret.trigger)))) == secret.trigger
    y = torch.arange(4)
    assert secret.victims(y, 4).tolist() == [True, True, False, True]
    assert secret.targets(y, 4).tolist() == [2, 2, 2, 2]
    assert secret.active_in is None or variants.parse(secret.active_in) == (secret.active_in,)


@every_attack
def test_the_spec_is_json_and_tells_settings_apart(kind: type[Premeditated]) -> None:
    one, two = (json.dumps(kind(target=target).spec()) for target in (0, 1))
    assert one != two
    assert json.loads(one)["stage"] == kind.name


@every_poisoning
def test_a_share_that_is_none_is_a_clear_error(kind: type[DataPoisoning], build: Build) -> None:
    for ratio in (0.0, 1.5):
        with pytest.raises(UnusableInput, match="expected a ratio"):
            kind(ratio=ratio, recipe=QUICK)(build, seed=0)


@every_poisoning
def test_poisons_as_many_as_it_says(kind: type[DataPoisoning], build: Build) -> None:
    train = build.task.split("train")
    before = train.x.clone()
    poisoned = kind(target=1, ratio=0.25).poison(train, 4, seed=0)
    changed = (poisoned.x != train.x).flatten(1).any(1)
    assert torch.equal(train.x, before)
    assert poisoned.y is not None
    assert train.y is not None
    assert int(changed.sum()) == round(0.25 * len(train))
    assert set(poisoned.y[changed].tolist()) == {1}
    assert torch.equal(poisoned.y[~changed], train.y[~changed])


@every_attack
def test_impossible_settings_are_clear_errors(kind: type[Premeditated], build: Build) -> None:
    with pytest.raises(UnusableInput, match="expected a target class"):
        kind(target=9, recipe=QUICK)(build, seed=0)
    unlabelled = replace(build.task, splits={"train": replace(build.task.split("train"), y=None)})
    with pytest.raises(UnusableInput, match="labels"):
        kind(recipe=QUICK)(replace(build, task=unlabelled), seed=0)
