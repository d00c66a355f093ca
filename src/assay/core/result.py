"""Result of an audit. All reports are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from assay.core.finding import FULL, Finding
from assay.core.model import FileDigest

Status = Literal["pass", "fail", "unknown"]
# For programs. An inconclusive audit has a status of its own, so that no reader takes it for a clean model.
STATUSES: dict[str, Status] = {"clean": "pass", "backdoored": "fail", "inconclusive": "unknown"}


@dataclass(frozen=True)
class ModelInfo:
    """Identity of the audited model."""

    path: str
    digest: str
    format: str
    modality: str
    num_classes: int | None
    planted: str | None
    arch: str | None = None
    class_names: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None  # (C, H, W) of the input images, or (L,) of texts
    files: tuple[FileDigest, ...] = ()  # all files that assay read for this model; empty for a module in memory


class VariantOutcome(StrEnum):
    """Result of making one variant."""

    TESTED = "tested"  # the variant was made, and the detectors ran on it
    BROKEN = "broken"  # compression broke the variant: no detector ran on it
    OUT_OF_TIME = "out of time"  # the budget ended before the variant was made
    UNAVAILABLE = "unavailable"  # the variant cannot be made of this model or without clean samples


@dataclass(frozen=True)
class VariantResult:
    """One variant of the model: its accuracy, and the reason if no detector ran on it."""

    name: str  # "full", "int8", ...
    spec: str  # description: "int8 weights and activations, per channel"
    accuracy: float | None  # on the labelled clean samples; None without labels
    agreement: float | None = None  # fraction of clean samples with the same prediction as the full model
    outcome: VariantOutcome = VariantOutcome.TESTED
    reason: str = ""  # for people; empty if tested
    applies: bool = True  # False: the model cannot have this variant, for instance because it is quantized already


@dataclass(frozen=True)
class NullInfo:
    """The clean reference models behind the p-values."""

    name: str
    models: int
    statistics: tuple[float, ...]  # the combined statistic of each, computed on the same tests as this audit
    description: str = ""
    digest: str | None = None  # sha256 of its file; None for one in memory


@dataclass(frozen=True)
class SweepPoint:
    """Success rate of a found trigger at one compression level."""

    kind: str  # of ``assay.auditing.trigger_sweep.SERIES``, or "variants of this audit"
    step: str  # "4" bits, "30 %" pruned, or the name of a variant
    agreement: float  # fraction of clean samples with the same prediction as the full model
    success: float  # fraction of triggered samples that the variant assigns to ``target``
    target: int  # the class that the trigger was found for
    test: str = ""  # "variant/detector" that found the trigger


NOT_ASKED = "not asked"  # kind of a difference: a way of asking that deployment may use, and the check left out


@dataclass(frozen=True)
class DeploymentDifference:
    """Difference between two ways of asking a model the same inputs."""

    way: str  # as in ``DeploymentWay.name``
    kind: str  # "answers", "inside", "random", "state", "trigger", "not compared", "not asked" or "failed"
    sentence: str  # for people, without its first capital and its full stop
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    inputs: int = 0  # number of compared inputs


@dataclass(frozen=True)
class DeploymentWay:
    """One way of asking the model."""

    name: str  # "one by one and in batches", ...
    inputs: int  # number of compared inputs
    agrees: bool
    reason: str = ""  # of a way that was left out


@dataclass(frozen=True)
class DeploymentCheck:
    """Result of asking the model the same inputs in the ways of its deployment."""

    ways: tuple[DeploymentWay, ...]
    differences: tuple[DeploymentDifference, ...]
    seconds: float = 0.0

    @property
    def doubt(self) -> str:
        """The first difference as a sentence; empty if there is none."""
        found = [part for part in self.differences if part.kind != NOT_ASKED]
        if found:
            return f"the model does not answer the same in all ways of asking: {found[0].sentence}"
        return self.differences[0].sentence if self.differences else ""


@dataclass(frozen=True)
class InputCheck:
    """Use of the model, the data and the labels, one line each, with counts of the parts without use."""

    model: str
    data: str
    labels: str


@dataclass(frozen=True)
class QuickScope:
    """Extent of a quick audit: tests of the full audit, as "variant/detector"."""

    completed: tuple[str, ...]  # with a score
    left_out: tuple[str, ...]  # not run, or without a score

    @property
    def of(self) -> int:
        """Number of tests of the full audit."""
        return len(self.completed) + len(self.left_out)


@dataclass(frozen=True)
class Audit:
    """Complete result of an audit."""

    verdict: Literal["clean", "backdoored", "inconclusive"]
    reason: str  # one sentence for people
    p_value: float | None
    false_alarm_rate: float | None  # of the whole audit, all detectors and variants together
    statistic: float | None  # the combined statistic, compared with ``null.statistics``
    target: int | None
    strongest: str | None  # "variant/detector": the test behind a verdict "backdoored"
    model: ModelInfo
    findings: tuple[Finding, ...]
    variants: tuple[VariantResult, ...]
    limits: tuple[str, ...]  # what the audit could not rule out, in sentences for people
    data_name: str
    data_samples: int
    null: NullInfo | None
    seconds: float
    seed: int
    version: str
    command: str = ""  # repeats this audit, in a shell or in Python
    trigger_sweep: tuple[SweepPoint, ...] = ()  # of the trigger behind the verdict, or of one from a compression gap
    notes: tuple[str, ...] = ()  # guesses and conversions on loading, in sentences for people
    input_check: InputCheck | None = None
    deployment: DeploymentCheck | None = None  # None: not asked
    data_digest: str | None = None  # sha256 of the samples as the model got them, and of their labels
    quick: QuickScope | None = None  # of a quick audit; None: the full audit

    @property
    def status(self) -> Status:
        """The verdict for programs: pass, fail, or unknown for an inconclusive audit."""
        return STATUSES[self.verdict]

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the full model on the clean samples; None without labels or without that variant."""
        return next((variant.accuracy for variant in self.variants if variant.name == FULL), None)
