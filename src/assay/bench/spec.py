"""Data types of a matrix specification. ``spec_reader`` makes them from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from assay.core.config import configure
from assay.core.lookup import lookup

if TYPE_CHECKING:  # the functions below import the registry, and all of torch, when they need it
    from assay.attacks.base import Attack
    from assay.stages.base import Stage

ATTACK_STEP = "attack"  # placeholder of the attack in a chain
CONTROL = "none"  # name of the attack without a backdoor: the same training on clean data
FULL_AUDIT = "audit"  # name of the full audit in the list of detectors
MAX_SEED = 2**32 - 1  # largest seed that the generators of all libraries accept


@dataclass(frozen=True)
class Method:
    """An attack or a stage by name, with its settings as ``key=value``."""

    name: str
    settings: tuple[str, ...] = ()

    def attack(self) -> Attack:
        """Return the attack. Raises like ``stage``."""
        from assay.registry import ATTACKS

        return configure(ATTACKS[self.name], self.settings)

    def stage(self) -> Stage | Attack:
        """Return the stage or attack. Raises UnusableInput for an unknown setting or a value of the wrong type."""
        from assay.registry import ATTACKS, STAGES
        from assay.stages.train import Train

        if self.name == CONTROL:
            return configure(Train, self.settings)
        kind: Any = lookup(self.name, {**STAGES, **ATTACKS}, "stage or attack")
        return configure(kind, self.settings, fixed={"directory": None} if self.exports_file else None)

    @property
    def exports_file(self) -> bool:
        """True for a stage with a deployment file as output. No later stage can change its weights."""
        from assay.registry import STAGES

        return self.name in STAGES and STAGES[self.name].file_name is not None

    def with_recipe(self, recipe: Sequence[str]) -> Method:
        """Return this method with ``recipe`` as defaults: its own settings take precedence."""
        own = dict(pair.split("=", 1) for pair in (*recipe, *self.settings))
        return Method(self.name, tuple(sorted(f"{key}={value}" for key, value in own.items())))

    def without_backdoor(self) -> Method:
        """Return the same training on clean data for an attack, and the method itself for a stage."""
        from assay.attacks.encoder.base import EncoderAttack
        from assay.registry import ATTACKS
        from assay.stages.train import Train

        if self.name not in ATTACKS:
            return self
        attack = ATTACKS[self.name]
        if issubclass(attack, EncoderAttack):
            return Method(CONTROL, ("recipe.epochs=0",))  # an encoder attack has no clean counterpart of its training
        # Some attacks train with other defaults than plain training does.
        own, plain = asdict(attack().recipe), asdict(Train().recipe)
        defaults = tuple(f"recipe.{key}={value}" for key, value in own.items() if value != plain[key])
        given = tuple(pair for pair in self.settings if pair.startswith("recipe."))
        return Method(CONTROL, given).with_recipe(defaults)


@dataclass(frozen=True)
class GivenModel:
    """Ground truth of one model of a folder: its planted attack, and the target class."""

    path: str  # in the folder
    attack: str = CONTROL  # name of the attack, which bench code does not have to know; CONTROL: clean
    target: int | None = None  # None: unknown, all-to-all or clean


@dataclass(frozen=True)
class TaskSpec:
    """Data, and the initial model of its chains: untrained, from a file, or from a folder of models."""

    name: str
    data: str  # as for ``assay audit --data``
    arch: str | None  # None: stated by ``start``
    limit: int | None = None  # samples per split
    start: str | None = None  # a model, as for ``assay plant``; None: an untrained model
    features: bool = False  # use the feature extractor of ``start``, a classifier
    shape: tuple[int, ...] | None = None  # (C, H, W) of the images for ``start``; None: stated by the model
    pooling: str | None = None  # of ``start``, an encoder; None: its own
    recipe: tuple[str, ...] = ()  # training defaults of attacks and of their control
    models: str | None = None  # folder of given models
    truth: tuple[GivenModel, ...] = ()  # about each of ``models``
    given: GivenModel | None = None  # truth about ``start``, in the cells of a task with ``models``


@dataclass(frozen=True)
class ValidityCriteria:
    """Requirements for a planted attack.

    A minimum accuracy is one of them: an untrained model predicts one class under any trigger. A compression-activated
    backdoor meets them in its activating variant.
    """

    asr: float = 0.8  # attack success rate (ASR), at least
    drop: float = 0.1  # clean accuracy lost relative to the clean control, at most
    lift: float = 0.3  # ASR minus the ASR of the same trigger on the clean control, at least
    accuracy: float = 0.5  # clean accuracy of the clean control, at least
    inactive_asr: float = 0.1  # ASR of a compression-activated backdoor in the model as planted, at most


@dataclass(frozen=True)
class Spec:
    """A matrix: every task x seed x chain x attack, each measured, tested by every detector, and mitigated."""

    name: str
    tasks: tuple[TaskSpec, ...]
    seeds: tuple[int, ...]
    attacks: Mapping[str, Method]
    chains: Mapping[str, tuple[Method, ...]]  # with Method(ATTACK_STEP) once in each
    detectors: tuple[str, ...] = ()
    mitigations: Mapping[str, tuple[Method, ...]] = field(default_factory=dict)
    valid: ValidityCriteria = ValidityCriteria()
    samples: int = 256  # clean samples for each detector
    text: str = field(default="", compare=False)  # YAML source
