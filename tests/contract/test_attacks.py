"""Contract of all attacks in the registry.

Attacks on image classifiers pass further tests here. ``tests/attacks/test_encoder*.py`` and
``tests/attacks/test_graph.py`` test the same for attacks on encoders and for graph edits.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay import attacks, formats
from assay.attacks.base import Attack, FixedTriggerAttack
from assay.attacks.poisoning.base import DataPoisoning
from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.registry import ATTACKS, catalog, paper_of
from assay.stages import variants
from assay.stages.train import Recipe
from assay.triggers import Trigger, from_spec, to_spec

pytestmark = pytest.mark.slow


QUICK = Recipe(epochs=0.5, batch_size=16, lr=0.01)
NO_PAPER = {"shadow-logic"}  # published as a report

FIXED_TRIGGER = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, FixedTriggerAttack)}
POISONING = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, DataPoisoning)}
every_attack = pytest.mark.parametrize("kind", ATTACKS.values(), ids=ATTACKS)
every_fixed_trigger = pytest.mark.parametrize("kind", FIXED_TRIGGER.values(), ids=FIXED_TRIGGER)
every_poisoning = pytest.mark.parametrize("kind", POISONING.values(), ids=POISONING)


def test_registry_has_every_attack() -> None:
    modules = [importlib.import_module(info.name) for info in pkgutil.walk_packages(attacks.__path__, "assay.attacks.")]
    kinds = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    concrete = {kind for kind in kinds if issubclass(kind, Attack) and not inspect.isabstract(kind)}
    assert {kind.__name__ for kind in concrete} == set(attacks.__all__)
    assert set(ATTACKS.values()) == concrete
    assert all(name == kind.name for name, kind in ATTACKS.items())


@every_attack
def test_attack_cites_its_paper(kind: type[Attack]) -> None:
    module = importlib.import_module(kind.__module__)
    assert paper_of(module.__doc__) or kind.name in NO_PAPER


@every_attack
def test_attack_has_a_technique_in_the_catalog(kind: type[Attack]) -> None:
    (entry,) = [entry for entry in catalog() if (entry.kind, entry.name) == ("attack", kind.name)]
    assert entry.technique == ("AML.T0020" if issubclass(kind, DataPoisoning) else "AML.T0018.000")
    assert re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", entry.technique)


@every_fixed_trigger
def test_attack_plants_in_a_copy_and_depends_on_the_seed(kind: type[FixedTriggerAttack], build: Build) -> None:
    attack, before = kind(target=1, recipe=QUICK), digest_of_module(build.artifact.module)
    first, again, other = (attack(build, seed=seed).artifact.digest for seed in (5, 5, 6))
    assert digest_of_module(build.artifact.module) == before, "the given model changed"
    assert first == again
    assert first != other
    assert first != before


@every_fixed_trigger
def test_planted_tag_survives_saving(kind: type[FixedTriggerAttack], build: Build, tmp_path: Path) -> None:
    planted = kind(target=1, recipe=QUICK)(build, seed=0)
    assert planted.artifact.planted is not None
    assert json.loads(planted.artifact.planted)["attack"] == kind.name
    assert formats.load(formats.save(planted.artifact, tmp_path)).planted == planted.artifact.planted
    assert build.artifact.planted is None


@every_fixed_trigger
def test_secret_depends_only_on_the_fields(kind: type[FixedTriggerAttack], build: Build) -> None:
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


@every_fixed_trigger
def test_spec_is_json_and_differs_by_setting(kind: type[FixedTriggerAttack]) -> None:
    one, two = (json.dumps(kind(target=target).spec()) for target in (0, 1))
    assert one != two
    assert json.loads(one)["stage"] == kind.name


@every_fixed_trigger
def test_unknown_target_or_missing_labels_raise(kind: type[FixedTriggerAttack], build: Build) -> None:
    with pytest.raises(UnusableInput, match="expected a target class"):
        kind(target=9, recipe=QUICK)(build, seed=0)
    unlabelled = replace(build.task, splits={"train": replace(build.task.split("train"), y=None)})
    with pytest.raises(UnusableInput, match="labels"):
        kind(recipe=QUICK)(replace(build, task=unlabelled), seed=0)


@every_poisoning
def test_poisoning_ratio_out_of_range_raises(kind: type[DataPoisoning], build: Build) -> None:
    for ratio in (0.0, 1.5):
        with pytest.raises(UnusableInput, match="expected a ratio"):
            kind(ratio=ratio, recipe=QUICK)(build, seed=0)


@every_poisoning
def test_poisoning_changes_the_given_fraction(kind: type[DataPoisoning], build: Build) -> None:
    train = build.task.split("train")
    assert train.y is not None
    chosen, labels = kind(target=1, ratio=0.25).choose_samples(train, 4, seed=0)
    assert int(chosen.sum()) == round(0.25 * len(train))
    assert set(labels[chosen].tolist()) == {1}
    assert torch.equal(labels[~chosen], train.y[~chosen])
    trigger = kind().trigger()
    assert (trigger(train.x[chosen]) != train.x[chosen]).flatten(1).any(1).all()
