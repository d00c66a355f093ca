"""A spec is read strictly: what is wrong is said in one line, with its place, before anything runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from support.bench_specs import SMALL, changed

from assay.attacks.base import FixedTriggerAttack
from assay.bench.spec import Method
from assay.bench.spec import ValidityCriteria
from assay.bench.spec_reader import parse_text
from assay.bench.spec_reader import parse
from assay.core.errors import UnusableInput
from assay.registry import ATTACKS
from assay.stages.train import Train


def test_a_spec_in_yaml() -> None:
    spec = parse_text(yaml.safe_dump(SMALL))
    assert spec.name == "small"
    assert spec.seeds == (0, 1)
    assert spec.tasks[0].data == "signs:6"
    assert spec.attacks["corner"] == Method("badnets", ("patch.place=1,2", "patch.size=4", "recipe.epochs=3"))
    assert spec.chains["shipped"] == (Method("train"), Method("attack"), Method("prune-magnitude", ("rate=0.5",)))
    assert spec.valid == ValidityCriteria(0.9, ValidityCriteria.drop)
    assert spec.attacks["corner"].without_backdoor() == Method("none", ("recipe.epochs=3",))


def test_a_task_says_how_attacks_train_where_they_do_not_say_it() -> None:
    recipe = {"epochs": 2, "mirror": True}
    (task,) = parse(changed("tasks/signs/recipe", recipe)).tasks
    assert task.recipe == ("recipe.epochs=2", "recipe.mirror=True")
    method = Method("badnets", ("recipe.epochs=3", "target=1")).with_recipe(task.recipe)
    assert method == Method("badnets", ("recipe.epochs=3", "recipe.mirror=True", "target=1"))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("detecters", ["patch-scan"], "did you mean detectors"),
        ("detectors", ["patch-scann"], "did you mean patch-scan"),
        ("attacks/corner", "badnet", "did you mean badnets"),
        ("attacks/corner", {"badnets": {"patch": {"sice": 4}}}, r"attacks.corner: .*did you mean patch.size"),
        ("attacks/corner", {"badnets": {"ratio": "much"}}, "expected a number, got 'much'"),
        ("attacks/corner", {"badnets": {}, "blended": {}}, "one name with its settings"),
        ("attacks/corner", {"badnets": 3}, "key: value; came 3"),
        ("chains/shipped", ["train"], "expected the word `attack` once"),
        ("chains/shipped", ["attack", "attack"], "expected the word `attack` once"),
        ("chains/shipped", ["attack", "fine-tun"], "did you mean fine-tune"),
        ("chains/shipped", ["attack", "prune-magnitude"], "rate"),
        ("chains/shipped", [], "expected a list"),
        ("chains/shipped", ["attack", "int8", "fine-tune"], "int8 makes a file that no later step can change"),
        ("chains/shipped", ["attack", {"int8": {"directory": "/tmp"}}], "there is no such setting"),
        ("mitigations", {"tuned": ["export", "fine-tune"]}, "export makes a file"),
        ("tasks/signs/arch", "resnet9-cifar", "resnet8-cifar"),
        ("tasks/signs/dta", "signs", "did you mean data"),
        ("tasks/signs", {"data": "signs"}, "expected `arch`, for a fresh net, or `start`"),
        ("tasks/signs/start", 3, "tasks.signs.start: expected a word"),
        ("tasks/signs/recipe", {"epoch": 3}, "tasks.signs.recipe: .*did you mean recipe.epochs"),
        ("tasks/signs/recipe", "fast", "tasks.signs.recipe"),
        ("tasks", ["signs"], "tasks: expected names"),
        ("seeds", [0, -1], "seeds: expected a whole number"),
        ("seeds", [True], "seeds: expected a whole number"),
        ("seeds", [2**32], "seeds: expected a whole number from 0 to 4294967295"),
        ("samples", 0, "samples: expected a whole number of at least 1"),
        ("tasks/signs/limit", 0, "tasks.signs.limit: expected a whole number of at least 1"),
        ("attacks", {}, "attacks: expected at least one"),
        ("attacks", {"corner": "badnets"}, "attacks: expected the control `none`"),
        ("attacks/corner", "badnetz", "attacks.corner: there is no attack 'badnetz'"),
        ("attacks", ["x"] * 10_000, r"attacks: expected names with a value each; came .{0,90}$"),
        ("valid", {"asr": 1.5}, "valid.asr: expected a number from 0 to 1"),
        ("mitigations", {"tuned": ["badnets"]}, "there is no stage 'badnets'"),
        ("name", 3, "name: expected a word"),
    ],
)
def test_what_is_wrong_is_said(path: str, value: Any, said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        parse(changed(path, value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nseeds: [0]\nseeds: [1]", "line 3.*'seeds' comes twice"),
        ("name: a\ntasks: {t: {data: signs}, t: {data: digits}}", "'t' comes twice"),
        ("a: &a [1, 1]\nb: [*a, *a]", "no aliases"),
        ("&a {a: *a}", "no aliases"),
    ],
)
def test_what_yaml_would_take_silently_is_refused(text: str, said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        parse_text(text)


@pytest.mark.parametrize("missing", ["name", "tasks", "seeds", "attacks", "chains"])
def test_what_is_missing_is_said(missing: str) -> None:
    with pytest.raises(UnusableInput, match=f"expected the key '{missing}'"):
        parse({key: value for key, value in SMALL.items() if key != missing})


@pytest.mark.parametrize("text", ["[1, 2", "!!python/object:os.system x", "- a", "", "a: b: c"])
def test_what_is_no_spec_at_all(text: str) -> None:
    with pytest.raises(UnusableInput):
        parse_text(text)


def test_the_clean_twin_of_an_attack_is_trained_as_the_attack_trains() -> None:
    on_classifiers = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, FixedTriggerAttack)}
    assert len(on_classifiers) > 5
    for name, kind in on_classifiers.items():
        method = Method(name, ("recipe.lr=0.007", "target=1"))
        twin = method.without_backdoor().stage()
        assert isinstance(twin, Train)
        assert twin.recipe == replace(kind().recipe, lr=0.007), name


def test_the_clean_twin_of_an_attack_on_an_encoder_is_the_encoder_as_it_came() -> None:
    twin = Method("transtroj", ("recipe.lr=0.007", "references=here")).without_backdoor()
    assert twin == Method("none", ("recipe.epochs=0",))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"data": "signs:3", "arch": "resnet8-cifar", "features": True}, "are for a model to begin with"),
        ({"data": "signs:3", "start": "net", "features": "yes please"}, "features: expected true or false"),
        ({"data": "signs:3", "start": "net", "shape": [3, 0, 8]}, "shape"),
    ],
)
def test_an_encoder_to_begin_with_is_read_strictly(task: dict[str, Any], said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        parse({**SMALL, "tasks": {"signs": task}})
