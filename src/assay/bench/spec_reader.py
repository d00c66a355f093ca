"""Strict reader of matrix specifications: every name and value is checked before anything runs.

Error messages begin with the place in the specification, as in ``tasks.signs.limit``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from assay.bench.spec import (
    ATTACK_STEP,
    CONTROL,
    FULL_AUDIT,
    MAX_SEED,
    GivenModel,
    Method,
    Spec,
    TaskSpec,
    ValidityCriteria,
)
from assay.bench.spec_values import (
    fraction,
    integer,
    known_mapping,
    named_mapping,
    non_empty_list,
    non_empty_mapping,
    shown,
    word,
)
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup
from assay.formats.arch import factory_of
from assay.io.files import any_json, read_text
from assay.io.strict_yaml import MAX_YAML_BYTES, read_yaml
from assay.registry import ATTACKS, STAGES, all_detectors

SECTIONS = ("name", "tasks", "seeds", "attacks", "chains", "detectors", "mitigations", "valid", "samples")
TASK_KEYS = ("data", "arch", "limit", "start", "features", "shape", "pooling", "recipe", "models", "truth")
TRUTH_FILE = "truth.json"  # in a folder of given models
OLD_CRITERIA = {"asleep": "inactive_asr"}  # keys of ``valid`` in older specifications


def read_spec(path: Path, *, seeds: Sequence[int] | None = None) -> Spec:
    """Return the specification in a file.

    Args:
        path: a YAML file of at most 1 MiB.
        seeds: seeds in place of those of the file. The text of the returned specification contains them.

    Raises:
        UnusableInput: the file cannot be read, or is no valid specification.
    """
    text = read_text(path, most=MAX_YAML_BYTES)
    try:
        document = _with_truth(read_yaml(text))
        if seeds is not None and isinstance(document, Mapping):
            document = {**document, "seeds": list(seeds)}
        if document != read_yaml(text):
            text = yaml.safe_dump(document, sort_keys=False)
        return parse_text(text)
    except UnusableInput as error:
        raise UnusableInput(f"{path}: {error}") from None


def parse_text(text: str) -> Spec:
    """Return the specification in a YAML text. Raises UnusableInput with the place and the expected value."""
    return replace(parse(read_yaml(text)), text=text)


def parse(document: Any) -> Spec:
    """Return the specification in a parsed YAML document. Raises UnusableInput as ``parse_text`` does."""
    top = known_mapping(document, "the spec", SECTIONS, needed=("name", "tasks", "seeds", "chains"))
    tasks = tuple(_task(name, value) for name, value in non_empty_mapping(top["tasks"], "tasks").items())
    if "attacks" not in top and not all(task.models for task in tasks):
        raise UnusableInput("the spec: expected the key 'attacks', which is missing")
    attacks = named_mapping(top["attacks"], "attacks") if "attacks" in top else {}
    methods = {name: _attack(value, f"attacks.{name}") for name, value in attacks.items()}
    if not methods and not all(task.models for task in tasks):
        raise UnusableInput("attacks: expected at least one, got none")
    chains = non_empty_mapping(top["chains"], "chains")
    mitigations = named_mapping(top.get("mitigations") or {}, "mitigations")
    spec = Spec(
        name=word(top["name"], "name"),
        tasks=tasks,
        seeds=tuple(integer(seed, "seeds", maximum=MAX_SEED) for seed in non_empty_list(top["seeds"], "seeds")),
        attacks=methods,
        chains={name: _chain(value, f"chains.{name}") for name, value in chains.items()},
        detectors=_detectors(top.get("detectors") or []),
        mitigations={name: _mitigation(value, f"mitigations.{name}") for name, value in mitigations.items()},
        valid=_criteria(top.get("valid") or {}),
        samples=integer(top.get("samples", Spec.samples), "samples", minimum=1),
    )
    _check_given_models(spec)
    if spec.detectors:
        _check_controls(spec)
    return spec


def _check_given_models(spec: Spec) -> None:
    if not any(task.models for task in spec.tasks):
        return
    for name, steps in spec.chains.items():
        if steps[0] != Method(ATTACK_STEP):
            raise UnusableInput(f"chains.{name}: expected `{ATTACK_STEP}` first, in place of the given models")


def _check_controls(spec: Spec) -> None:
    """Raise UnusableInput for detectors without clean models to compare with."""
    planted = any(not task.models for task in spec.tasks)
    if planted and not any(attack.name == CONTROL for attack in spec.attacks.values()):
        raise UnusableInput(
            f"attacks: expected the control `{CONTROL}` among them: scores of backdoored models have a meaning only "
            "in comparison with those of clean models"
        )
    for task in spec.tasks:
        if task.models and not any(given.attack == CONTROL for given in task.truth):
            raise UnusableInput(f"tasks.{task.name}.truth: expected at least one clean model (`attack: {CONTROL}`)")


def _detectors(value: Any) -> tuple[str, ...]:
    names = tuple(word(name, "detectors") for name in non_empty_list(value, "detectors")) if value else ()
    known = {FULL_AUDIT: None, **{detector.name: detector for detector in all_detectors()}}
    with _place("detectors"):
        for name in names:
            lookup(name, known, "detector")
    return names


def _task(name: str, value: Any) -> TaskSpec:
    position = f"tasks.{name}"
    fields = known_mapping(value, position, TASK_KEYS, needed=("data",))
    _check_initial_model(fields, position)
    texts = {
        key: word(fields[key], f"{position}.{key}") for key in ("arch", "start", "pooling", "models") if key in fields
    }
    limit, shape, features = (fields.get(key) for key in ("limit", "shape", "features"))
    where = f"{position}.shape"
    if not isinstance(features, bool | None):
        raise UnusableInput(f"{position}.features: expected true or false, got {shown(features)}")
    task = TaskSpec(
        name,
        word(fields["data"], f"{position}.data"),
        texts.get("arch"),
        limit=None if limit is None else integer(limit, f"{position}.limit", minimum=1),
        start=texts.get("start"),
        features=bool(features),
        shape=None if shape is None else tuple(integer(n, where, minimum=1) for n in non_empty_list(shape, where)),
        pooling=texts.get("pooling"),
        recipe=_method({CONTROL: {"recipe": fields.get("recipe") or {}}}, f"{position}.recipe").settings,
        models=texts.get("models"),
        truth=_truth(fields["truth"], f"{position}.truth") if "truth" in fields else (),
    )
    if task.arch is not None:
        with _place(f"{position}.arch"):
            factory_of(task.arch)
    _checked(Method(CONTROL, task.recipe), f"{position}.recipe")
    return task


def _check_initial_model(fields: Mapping[str, Any], position: str) -> None:
    """Raise UnusableInput unless the keys of a task name exactly one initial model."""
    if not {"arch", "start", "models"} & set(fields):
        raise UnusableInput(
            f"{position}: expected `arch` (an untrained model), `start` (a model file) or `models` (a folder), got none"
        )
    if "start" in fields and "models" in fields:
        raise UnusableInput(f"{position}: expected `start` or `models`, got both")
    if not {"start", "models"} & set(fields) and {"features", "shape", "pooling"} & set(fields):
        raise UnusableInput(f"{position}: `features`, `shape` and `pooling` describe a given model: expected `start`")
    if "models" in fields and "truth" not in fields:
        raise UnusableInput(f"{position}: expected `truth`, or a file {TRUTH_FILE} in the folder of `models`")
    if "truth" in fields and "models" not in fields:
        raise UnusableInput(f"{position}: `truth` is about given models: expected `models`")


def _truth(value: Any, position: str) -> tuple[GivenModel, ...]:
    """Read ``{path: {attack: NAME, target: CLASS}}``; ``attack: none`` is a clean model."""
    found = []
    for path, entry in non_empty_mapping(value, position).items():
        place = f"{position}.{path}"
        fields = known_mapping(entry, place, ("attack", "target"), needed=("attack",))
        target = fields.get("target")
        found.append(
            GivenModel(
                path,
                word(fields["attack"], f"{place}.attack"),
                None if target is None else integer(target, f"{place}.target"),
            )
        )
    return tuple(found)


def _with_truth(document: Any) -> Any:
    """Return the document with the truth files of its folders written into its tasks.

    The text of a specification in a store is then complete, even after the folder has gone.
    """
    tasks = document.get("tasks") if isinstance(document, Mapping) else None
    if not isinstance(tasks, Mapping):
        return document  # ``parse`` states the reason
    complete = {}
    for name, task in tasks.items():
        complete[name] = task
        if isinstance(task, Mapping) and isinstance(task.get("models"), str) and "truth" not in task:
            path = Path(task["models"]) / TRUTH_FILE
            try:
                complete[name] = {**task, "truth": any_json(path)}
            except UnusableInput as error:
                raise UnusableInput(f"tasks.{name}.models: {error}") from None
    return {**document, "tasks": complete}


def _attack(value: Any, position: str) -> Method:
    method = _method(value, position)
    with _place(position):
        lookup(method.name, {CONTROL: None, **ATTACKS}, "attack")
    return _checked(method, position)


def _chain(value: Any, position: str) -> tuple[Method, ...]:
    steps = tuple(_method(step, position) for step in non_empty_list(value, position))
    if sum(step == Method(ATTACK_STEP) for step in steps) != 1:
        raise UnusableInput(f"{position}: expected the word `{ATTACK_STEP}` once, in place of the attack")
    return _in_order(tuple(step if step == Method(ATTACK_STEP) else _stage(step, position) for step in steps), position)


def _mitigation(value: Any, position: str) -> tuple[Method, ...]:
    steps = [_stage(_method(step, position), position) for step in non_empty_list(value, position)]
    return _in_order(tuple(steps), position)


def _in_order(steps: tuple[Method, ...], position: str) -> tuple[Method, ...]:
    for step in steps[:-1]:
        if step.exports_file:
            raise UnusableInput(f"{position}: {step.name} makes a file that no later step can change. Fix: put it last")
    return steps


def _stage(method: Method, position: str) -> Method:
    with _place(position):
        lookup(method.name, STAGES, "stage")
    return _checked(method, position)


def _checked(method: Method, position: str) -> Method:
    with _place(f"{position}: {method.name}"):
        method.stage()
    return method


@contextmanager
def _place(position: str) -> Iterator[None]:
    """Prefix the message of an UnusableInput with the place in the specification."""
    try:
        yield
    except UnusableInput as error:
        raise UnusableInput(f"{position}: {error}") from None


def _method(value: Any, position: str) -> Method:
    """Read ``name`` or ``{name: {setting: value, ...}}``."""
    if isinstance(value, str):
        return Method(value)
    if not isinstance(value, Mapping) or len(value) != 1:
        raise UnusableInput(f"{position}: expected a name, or one name with its settings, got {shown(value)}")
    ((name, settings),) = value.items()
    if settings is not None and not isinstance(settings, Mapping):
        raise UnusableInput(f"{position}: expected the settings of {name} as key: value, got {shown(settings)}")
    return Method(word(name, position), tuple(_pairs(settings or {})))


def _pairs(settings: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """Return nested settings as sorted ``outer.inner=value`` texts."""
    pairs: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _pairs(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            pairs.append(f"{prefix}{key}={','.join(map(str, value))}")
        else:
            pairs.append(f"{prefix}{key}={'none' if value is None else value}")
    return sorted(pairs)


def _criteria(value: Any) -> ValidityCriteria:
    names = tuple(field.name for field in dataclass_fields(ValidityCriteria))
    fields = known_mapping(value, "valid", (*names, *OLD_CRITERIA))
    return ValidityCriteria(
        **{OLD_CRITERIA.get(key, key): fraction(number, f"valid.{key}") for key, number in fields.items()}
    )
