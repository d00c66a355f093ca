"""What an audit returns, from which every report is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from assay.core.finding import Finding


@dataclass(frozen=True)
class ModelInfo:
    """Which model was audited."""

    path: str
    digest: str
    format: str
    modality: str
    num_classes: int | None
    planted: str | None
    arch: str | None = None
    class_names: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None  # (C, H, W) of the pictures that it was given


@dataclass(frozen=True)
class VariantResult:
    """One form in which the model was audited."""

    name: str  # "full", "int8", ...
    spec: str  # what was done, in words: "int8 weights and activations, per channel"
    accuracy: float | None  # on the labelled clean data; None without labels
    agreement: float | None = None  # share of clean samples on which it predicts what the full model does
    skipped: str = ""  # why it was not searched, for instance that compression broke it
    broken: bool = False  # it was skipped because compression broke it
    late: bool = False  # it was skipped because the budget had ended


@dataclass(frozen=True)
class NullInfo:
    """The clean reference models that the p-values come from."""

    name: str
    models: int
    statistics: tuple[float, ...]  # the combined statistic of each, computed on the same tests as this audit
    description: str = ""


@dataclass(frozen=True)
class Waking:
    """What the trigger that was found does in the model at one step of compression."""

    kind: str  # of ``assay.auditing.trigger_sweep.SERIES``, or "forms of this audit"
    step: str  # "4" bits, "30 %" pruned, or a form's name
    agreement: float  # share of clean samples on which this form says what the model as given says
    success: float  # share of triggered samples that get the class that the trigger was found for
    target: int  # that class
    test: str = ""  # "form/detector": what found it


@dataclass(frozen=True)
class Audit:
    """The whole answer, from which every report is made."""

    verdict: Literal["clean", "backdoored", "inconclusive"]
    reason: str  # one sentence for people
    p_value: float | None
    false_alarm_rate: float | None  # of the whole audit, all detectors and variants together
    statistic: float | None  # the combined statistic, compared with ``null.statistics``
    target: int | None
    strongest: str | None  # "form/detector": the test that a verdict "backdoored" rests on
    model: ModelInfo
    findings: tuple[Finding, ...]
    variants: tuple[VariantResult, ...]
    limits: tuple[str, ...]  # what could not be ruled out, in plain sentences
    data_name: str
    data_samples: int
    null: NullInfo | None
    seconds: float
    seed: int
    version: str
    command: str = ""  # what repeats this audit, in a shell or in Python
    waking: tuple[Waking, ...] = ()  # of the trigger behind a verdict "backdoored", or one that opens a gap
    notes: tuple[str, ...] = ()  # what was guessed or converted on the way in, in sentences for people

    @property
    def accuracy(self) -> float | None:
        """Of the model as given on the clean samples; None without labels, and where that form was not audited."""
        return next((variant.accuracy for variant in self.variants if variant.name == "full"), None)


def as_call(model: object, data: object, options: Mapping[str, object]) -> str:
    """``assay.audit(...)`` as it was called, less the options that are None; objects in memory stand as variables."""
    given = {name: value for name, value in options.items() if value is not None}
    named = [f"{name}={_written(value, name)}" for name, value in given.items()]
    first = _written(model, "model") if data is None else f"{_written(model, 'model')}, {_written(data, 'data')}"
    return f"assay.audit({', '.join([first, *named])})"


def _written(value: object, name: str) -> str:
    """A value as Python source where it is plain, else ``name``."""
    plain = value if isinstance(value, tuple) else (value,)
    if isinstance(value, Path):
        return repr(str(value))
    return repr(value) if all(isinstance(part, str | int | float) for part in plain) else name
