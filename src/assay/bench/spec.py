"""What a matrix is made of: a short YAML file, read strictly, every name and value checked before anything runs."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from typing import Any

from assay.attacks.base import Attack
from assay.attacks.encoder.base import EncoderAttack
from assay.bench.full_audit import WHOLE
from assay.core.config import configured
from assay.core.errors import UnusableInput
from assay.core.lookup import chosen
from assay.formats.arch import factory_of
from assay.io.strict_yaml import read_yaml
from assay.registry import ATTACKS, FILES, STAGES, all_detectors
from assay.stages.base import Stage
from assay.stages.train import Train

PLACE = "attack"
"""Stands in a chain where the attack goes."""

CONTROL = "none"
"""The attack that plants nothing: the same training on clean data."""

MOST_SEED = 2**32 - 1
"""What the generators of every library take."""

SECTIONS = ("name", "tasks", "seeds", "attacks", "chains", "detectors", "mitigations", "valid", "samples")


@dataclass(frozen=True)
class Method:
    """An attack or a stage with its settings, as ``key=value``."""

    name: str
    settings: tuple[str, ...] = ()

    def attack(self) -> Attack:
        """The attack that it names; raises as ``stage``."""
        return configured(ATTACKS[self.name], self.settings)

    def stage(self) -> Stage | Attack:
        """What it names. Raises UnusableInput for a setting that is not there or of the wrong type."""
        if self.name == CONTROL:
            return configured(Train, self.settings)
        kind: Any = chosen(self.name, {**STAGES, **ATTACKS}, "stage or attack")
        return configured(kind, self.settings, fixed={"directory": None} if self.makes_a_file else None)

    @property
    def makes_a_file(self) -> bool:
        """Whether what comes out has no weights any more that a stage could change."""
        return self.name in FILES

    def trained_by(self, recipe: Sequence[str]) -> Method:
        """With ``recipe`` where the settings do not say how to train."""
        own = dict(pair.split("=", 1) for pair in (*recipe, *self.settings))
        return Method(self.name, tuple(sorted(f"{key}={value}" for key, value in own.items())))

    def without_backdoor(self) -> Method:
        """The same training on clean data, for an attack; itself for a stage."""
        if self.name not in ATTACKS:
            return self
        if issubclass(ATTACKS[self.name], EncoderAttack):
            return Method(CONTROL, ("recipe.epochs=0",))  # there is no clean training that is like it
        said = tuple(pair for pair in self.settings if pair.startswith("recipe."))
        return Method(CONTROL, said).trained_by(_own_recipe(self.name))


def _own_recipe(attack: str) -> tuple[str, ...]:
    """In what an attack trains otherwise than plain training where nobody says how."""
    own, plain = (asdict(stage.recipe) for stage in (ATTACKS[attack](), Train()))
    return tuple(f"recipe.{key}={value}" for key, value in own.items() if value != plain[key])


@dataclass(frozen=True)
class TaskSpec:
    """Data as for ``--data``, and the net before anything is done to it: fresh, or from a file."""

    name: str
    data: str
    arch: str | None  # None: ``start`` says it
    limit: int | None = None  # samples a split
    start: str | None = None  # a model, as ``assay plant`` takes it; None: fresh weights
    features: bool = False  # cut ``start``, a classifier, at its features
    shape: tuple[int, ...] | None = None  # (C, H, W) of the pictures for ``start``; None: it says it
    pooling: str | None = None  # of ``start``, an encoder; None: its own
    recipe: tuple[str, ...] = ()  # how attacks and their control train here, where they do not say otherwise


@dataclass(frozen=True)
class Band:
    """What an attack must reach to count, right after it is planted; a net that learned nothing obeys any trigger."""

    asr: float = 0.8  # of a dormant backdoor in the form in which it wakes; so are drop, lift and accuracy
    drop: float = 0.1  # at most so much clean accuracy lost, against the clean twin
    lift: float = 0.3  # at least so much more success than the same trigger has on the clean twin
    accuracy: float = 0.5  # of the clean twin, at least
    asleep: float = 0.1  # of a dormant backdoor: at most so much success in the model as planted


@dataclass(frozen=True)
class Spec:
    """A matrix: every task x seed x chain x attack, each measured, tested by every detector, mitigated."""

    name: str
    tasks: tuple[TaskSpec, ...]
    seeds: tuple[int, ...]
    attacks: Mapping[str, Method]
    chains: Mapping[str, tuple[Method, ...]]  # with Method(PLACE) once in each
    detectors: tuple[str, ...] = ()
    mitigations: Mapping[str, tuple[Method, ...]] = field(default_factory=dict)
    valid: Band = Band()
    samples: int = 256  # clean ones that a detector gets
    text: str = field(default="", compare=False)  # what it was read from


def parse_text(text: str) -> Spec:
    """The spec in a YAML text. Raises UnusableInput, with the place in the spec and what was expected there."""
    return replace(parse(read_yaml(text)), text=text)


def parse(document: Any) -> Spec:
    """The spec in what YAML was read into."""
    top = _mapping(document, "the spec", SECTIONS, needed=("name", "tasks", "seeds", "attacks", "chains"))
    attacks = {name: _attack(value, f"attacks.{name}") for name, value in _some(top["attacks"], "attacks").items()}
    detectors = _detectors(top.get("detectors"))
    if detectors and not any(attack.name == CONTROL for attack in attacks.values()):
        raise UnusableInput(
            f"attacks: expected the control `{CONTROL}` among them: what a detector says of backdoored models means "
            "something only beside what it says of clean ones"
        )
    mitigations = _named(top.get("mitigations") or {}, "mitigations")
    return Spec(
        name=_text(top["name"], "name"),
        tasks=tuple(_task(name, value) for name, value in _some(top["tasks"], "tasks").items()),
        seeds=tuple(_whole(seed, "seeds", most=MOST_SEED) for seed in _list(top["seeds"], "seeds")),
        attacks=attacks,
        chains={name: _chain(value, f"chains.{name}") for name, value in _some(top["chains"], "chains").items()},
        detectors=detectors,
        mitigations={name: _stages(value, f"mitigations.{name}") for name, value in mitigations.items()},
        valid=_band(top.get("valid") or {}),
        samples=_whole(top.get("samples", Spec.samples), "samples", least=1),
    )


def _detectors(value: Any) -> tuple[str, ...]:
    names = _words(value or [], "detectors")
    known = {WHOLE: None, **{detector.name: detector for detector in all_detectors()}}
    with _at("detectors"):
        for name in names:
            chosen(name, known, "detector")
    return names


def _task(name: str, value: Any) -> TaskSpec:
    where = f"tasks.{name}"
    known = ("data", "arch", "limit", "start", "features", "shape", "pooling", "recipe")
    fields = _mapping(value, where, known, needed=("data",))
    if not {"arch", "start"} & set(fields):
        raise UnusableInput(
            f"{where}: expected `arch`, for a fresh net, or `start`, a model to begin with; came neither"
        )
    arch, start = (_text(fields[key], f"{where}.{key}") if key in fields else None for key in ("arch", "start"))
    if start is None and {"features", "shape", "pooling"} & set(fields):
        raise UnusableInput(
            f"{where}: `features`, `shape` and `pooling` are for a model to begin with: expected `start`"
        )
    limit, shape, features = (fields.get(key) for key in ("limit", "shape", "features"))
    if not isinstance(features, bool | None):
        raise UnusableInput(f"{where}.features: expected true or false; came {reprlib.repr(features)}")
    task = TaskSpec(
        name,
        _text(fields["data"], f"{where}.data"),
        arch,
        None if limit is None else _whole(limit, f"{where}.limit", least=1),
        start,
        bool(features),
        None if shape is None else tuple(_whole(side, f"{where}.shape", least=1) for side in _list(shape, where)),
        _text(fields["pooling"], f"{where}.pooling") if "pooling" in fields else None,
        _method({CONTROL: {"recipe": fields.get("recipe") or {}}}, f"{where}.recipe").settings,
    )
    if arch is not None:
        with _at(f"{where}.arch"):
            factory_of(arch)  # says now what is not known
    _checked(Method(CONTROL, task.recipe), f"{where}.recipe")
    return task


def _attack(value: Any, where: str) -> Method:
    method = _method(value, where)
    with _at(where):
        chosen(method.name, {CONTROL: None, **ATTACKS}, "attack")
    return _checked(method, where)


def _chain(value: Any, where: str) -> tuple[Method, ...]:
    steps = tuple(_method(step, where) for step in _list(value, where))
    if sum(step == Method(PLACE) for step in steps) != 1:
        raise UnusableInput(f"{where}: expected the word `{PLACE}` once, where the attack goes")
    return _in_order(tuple(step if step == Method(PLACE) else _stage(step, where) for step in steps), where)


def _stages(value: Any, where: str) -> tuple[Method, ...]:
    return _in_order(tuple(_stage(_method(step, where), where) for step in _list(value, where)), where)


def _in_order(steps: tuple[Method, ...], where: str) -> tuple[Method, ...]:
    for step in steps[:-1]:
        if step.makes_a_file:
            raise UnusableInput(f"{where}: {step.name} makes a file that no later step can change: put it last")
    return steps


def _stage(method: Method, where: str) -> Method:
    with _at(where):
        chosen(method.name, STAGES, "stage")
    return _checked(method, where)


def _checked(method: Method, where: str) -> Method:
    with _at(f"{where}: {method.name}"):
        method.stage()
    return method


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Names the place in front of what is wrong there; settings are called as in a spec, not as options."""
    try:
        yield
    except UnusableInput as error:
        message = str(error).removeprefix("-o ").replace("unknown --arch", "unknown architecture")
        raise UnusableInput(f"{where}: {message}") from None


def _method(value: Any, where: str) -> Method:
    """``name`` or ``{name: {setting: value, ...}}``."""
    if isinstance(value, str):
        return Method(value)
    if not isinstance(value, Mapping) or len(value) != 1:
        raise UnusableInput(f"{where}: expected a name, or one name with its settings; came {reprlib.repr(value)}")
    ((name, settings),) = value.items()
    if settings is not None and not isinstance(settings, Mapping):
        raise UnusableInput(f"{where}: expected the settings of {name} as key: value; came {reprlib.repr(settings)}")
    return Method(_text(name, where), tuple(_pairs(settings or {})))


def _pairs(settings: Mapping[Any, Any], prefix: str = "") -> list[str]:
    pairs: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _pairs(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            pairs.append(f"{prefix}{key}={','.join(map(str, value))}")
        else:
            pairs.append(f"{prefix}{key}={'none' if value is None else value}")
    return sorted(pairs)


def _band(value: Any) -> Band:
    fields = _mapping(value, "valid", tuple(field.name for field in dataclass_fields(Band)))
    return Band(**{key: _share(number, f"valid.{key}") for key, number in fields.items()})


def _mapping(value: Any, where: str, known: Sequence[str], *, needed: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnusableInput(f"{where}: expected keys out of {', '.join(known)}; came {reprlib.repr(value)}")
    for key in value:
        chosen(str(key), dict.fromkeys(known), f"key in {where}")
    missing = [key for key in needed if key not in value]
    if missing:
        raise UnusableInput(f"{where}: expected the key {missing[0]!r}, which is missing")
    return value


def _named(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UnusableInput(f"{where}: expected names with a value each; came {reprlib.repr(value)}")
    return {_text(name, where): entry for name, entry in value.items()}


def _some(value: Any, where: str) -> dict[str, Any]:
    named = _named(value, where)
    if not named:
        raise UnusableInput(f"{where}: expected at least one, came none")
    return named


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UnusableInput(f"{where}: expected a list; came {reprlib.repr(value)}")
    return value


def _words(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_text(word, where) for word in _list(value, where)) if value else ()


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UnusableInput(f"{where}: expected a word; came {reprlib.repr(value)}")
    return value


def _whole(value: Any, where: str, *, least: int = 0, most: int | None = None) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UnusableInput(f"{where}: expected a whole number {limits}; came {reprlib.repr(value)}")
    return int(value)


def _share(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UnusableInput(f"{where}: expected a number from 0 to 1; came {reprlib.repr(value)}")
    return float(value)
