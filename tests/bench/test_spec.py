"""Specifications are read strictly: an error is one line with the place and the expected value."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.bench_specs import SMALL, changed

from assay.attacks.base import FixedTriggerAttack
from assay.bench.spec import Method, ValidityCriteria
from assay.bench.spec_reader import parse, parse_text, read_spec
from assay.core.errors import UnusableInput
from assay.registry import ATTACKS
from assay.stages.train import Train


def test_yaml_spec_is_parsed() -> None:
    spec = parse_text(yaml.safe_dump(SMALL))
    assert spec.name == "small"
    assert spec.seeds == (0, 1)
    assert spec.tasks[0].data == "signs:6"
    assert spec.attacks["corner"] == Method("badnets", ("patch.place=1,2", "patch.size=4", "recipe.epochs=3"))
    assert spec.chains["shipped"] == (Method("train"), Method("attack"), Method("prune-magnitude", ("rate=0.5",)))
    assert spec.valid == ValidityCriteria(0.9, ValidityCriteria.drop)
    assert spec.attacks["corner"].without_backdoor() == Method("none", ("recipe.epochs=3",))


def test_recipe_of_task_is_default_for_its_attacks() -> None:
    recipe = {"epochs": 2, "mirror": True}
    (task,) = parse(changed("tasks/signs/recipe", recipe)).tasks
    assert task.recipe == ("recipe.epochs=2", "recipe.mirror=True")
    method = Method("badnets", ("recipe.epochs=3", "target=1")).with_recipe(task.recipe)
    assert method == Method("badnets", ("recipe.epochs=3", "recipe.mirror=True", "target=1"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("detecters", ["patch-scan"], "did you mean detectors"),
        ("detectors", ["patch-scann"], "did you mean patch-scan"),
        ("attacks/corner", "badnet", "did you mean badnets"),
        ("attacks/corner", {"badnets": {"patch": {"sice": 4}}}, r"attacks.corner: .*did you mean patch.size"),
        ("attacks/corner", {"badnets": {"ratio": "much"}}, "expected a number, got 'much'"),
        ("attacks/corner", {"badnets": {}, "blended": {}}, "one name with its settings"),
        ("attacks/corner", {"badnets": 3}, "key: value, got 3"),
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
        ("tasks/signs", {"data": "signs"}, r"expected `arch` \(an untrained model\), `start`"),
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
        ("attacks", ["x"] * 10_000, r"attacks: expected names with a value each, got .{0,90}$"),
        ("valid", {"asr": 1.5}, "valid.asr: expected a number from 0 to 1"),
        ("mitigations", {"tuned": ["badnets"]}, "there is no stage 'badnets'"),
        ("name", 3, "name: expected a word"),
    ],
)
def test_wrong_value_is_refused_with_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        parse(changed(path, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nseeds: [0]\nseeds: [1]", "line 3.*'seeds' comes twice"),
        ("name: a\ntasks: {t: {data: signs}, t: {data: digits}}", "'t' comes twice"),
        ("a: &a [1, 1]\nb: [*a, *a]", "no aliases"),
        ("&a {a: *a}", "no aliases"),
    ],
)
def test_duplicate_keys_and_aliases_are_refused(text: str, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        parse_text(text)


@pytest.mark.parametrize("missing", ["name", "tasks", "seeds", "attacks", "chains"])
def test_missing_section_is_refused(missing: str) -> None:
    with pytest.raises(UnusableInput, match=f"expected the key '{missing}'"):
        parse({key: value for key, value in SMALL.items() if key != missing})


@pytest.mark.parametrize("text", ["[1, 2", "!!python/object:os.system x", "- a", "", "a: b: c"])
def test_text_without_spec_is_refused(text: str) -> None:
    with pytest.raises(UnusableInput, match=r"expected|not valid YAML"):
        parse_text(text)


def test_clean_control_has_recipe_of_its_attack() -> None:
    on_classifiers = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, FixedTriggerAttack)}
    assert len(on_classifiers) > 5
    for name, kind in on_classifiers.items():
        method = Method(name, ("recipe.lr=0.007", "target=1"))
        control = method.without_backdoor().stage()
        assert isinstance(control, Train)
        assert control.recipe == replace(kind().recipe, lr=0.007), name


def test_clean_control_of_encoder_attack_is_the_initial_encoder() -> None:
    control = Method("transtroj", ("recipe.lr=0.007", "references=here")).without_backdoor()
    assert control == Method("none", ("recipe.epochs=0",))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"data": "signs:3", "arch": "resnet8-cifar", "features": True}, "describe a given model"),
        ({"data": "signs:3", "start": "net", "features": "yes please"}, "features: expected true or false"),
        ({"data": "signs:3", "start": "net", "shape": [3, 0, 8]}, "shape"),
    ],
)
def test_wrong_initial_model_is_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        parse({**SMALL, "tasks": {"signs": task}})


GIVEN: dict[str, Any] = {
    "name": "given",
    "tasks": {
        "zoo": {
            "data": "signs:3",
            "limit": 60,
            "models": "zoo",
            "truth": {
                "clean/model.safetensors": {"attack": "none"},
                "planted/model.safetensors": {"attack": "badnets", "target": 2},
            },
        }
    },
    "seeds": [0],
    "chains": {"given": ["attack"], "pruned": ["attack", {"prune-magnitude": {"rate": 0.3}}]},
    "detectors": ["random-score"],
}


def with_task(**changes: Any) -> dict[str, Any]:
    """Return GIVEN with other values of its task; None removes a key."""
    task = {key: value for key, value in {**GIVEN["tasks"]["zoo"], **changes}.items() if value is not None}
    return {**GIVEN, "tasks": {"zoo": task}}


def test_task_of_given_models_has_their_truth() -> None:
    (task,) = parse(GIVEN).tasks
    assert [(given.path, given.attack, given.target) for given in task.truth] == [
        ("clean/model.safetensors", "none", None),
        ("planted/model.safetensors", "badnets", 2),
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (with_task(truth=None), "expected `truth`, or a file truth.json"),
        (with_task(models=None, arch="resnet8-cifar"), "`truth` is about given models"),
        (with_task(start="net"), "expected `start` or `models`, got both"),
        (with_task(truth={"a": {"attack": "badnets"}}), "expected at least one clean model"),
        (with_task(truth={"a": {"target": 1}}), "expected the key 'attack'"),
        (with_task(truth={"a": {"attack": "none", "target": -1}}), "tasks.zoo.truth.a.target: expected a whole number"),
        ({**GIVEN, "chains": {"late": ["fine-tune", "attack"]}}, "chains.late: expected `attack` first"),
    ],
)
def test_wrong_task_of_given_models_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        parse(document)


def test_truth_file_and_seeds_are_written_into_text_of_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "truth.json").write_text(json.dumps(GIVEN["tasks"]["zoo"]["truth"]))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(with_task(truth=None)))
    spec = read_spec(tmp_path / "spec.yaml", seeds=(4, 5))
    assert spec.seeds == (4, 5)
    assert parse_text(spec.text) == replace(parse(GIVEN), seeds=(4, 5))
    (tmp_path / "zoo" / "truth.json").write_text("{")
    with pytest.raises(UnusableInput, match=r"tasks.zoo.models: zoo.truth.json: is not valid JSON"):
        read_spec(tmp_path / "spec.yaml")


def test_spec_without_changes_keeps_its_text(tmp_path: Path) -> None:
    text = "# a comment\n" + yaml.safe_dump(SMALL)
    (tmp_path / "spec.yaml").write_text(text)
    assert read_spec(tmp_path / "spec.yaml").text == text


def test_old_name_of_inactive_asr_is_accepted() -> None:
    assert parse(changed("valid", {"asleep": 0.2})).valid.inactive_asr == 0.2
    assert parse(changed("valid", {"inactive_asr": 0.2})).valid.inactive_asr == 0.2
