"""Data types between the steps of an audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from assay.calibration.data_profile import DataProfile
from assay.calibration.matching import ComparedWith
from assay.core.dataset import DataSummary, Split
from assay.core.finding import Finding
from assay.core.model import Artifact, InputSpec
from assay.core.progress import Step
from assay.core.result import DeploymentCheck, DeploymentDifference, InputCheck, VariantResult
from assay.detectors.budget import Budget
from assay.inversion.forward import is_large_image
from assay.nn.encoders import find_cluster_probe

if TYPE_CHECKING:
    from assay.detectors.base import Detector

MAX_SAMPLES = 512  # clean samples of one audit
# The same for large images, which cost 50 times as much. A rate then has a standard error of at most 4 points.
MAX_LARGE_SAMPLES = 128


def sample_limit(inputs: InputSpec) -> int:
    """Return the largest number of clean samples of an audit of a model with ``inputs``."""
    return MAX_LARGE_SAMPLES if is_large_image(inputs.shape) else MAX_SAMPLES


@dataclass(frozen=True)
class CleanSamples:
    """Clean samples of an audit, at most ``sample_limit``."""

    name: str
    split: Split
    class_names: tuple[str, ...] | None = None  # names of the model's classes in the data
    notes: tuple[str, ...] = ()  # guesses on reading the data
    summary: DataSummary = field(default_factory=DataSummary)  # choices and counts on reading the data
    used: str = ""  # split of the samples


@dataclass(frozen=True)
class Preconditions:
    """Facts about model and samples: preconditions for the meaning of any score."""

    samples: int  # number of clean samples
    classes: int | None = None  # of the model
    predicted: int | None = None  # number of different classes predicted on the samples
    accuracy: float | None = None  # of the full model on the samples; None without labels
    normalized: bool = True  # False: the model's normalization is a guess
    better_normalization: str = ""  # a sentence on a usual normalization with far more right predictions
    deployment: str = ""  # the first difference between two ways of asking, as a sentence; empty if there is none
    trigger: str = ""  # the first difference between two ways of measuring a found trigger


@dataclass(frozen=True)
class AuditInputs:
    """A model and clean samples, with all facts about them for the audit."""

    artifact: Artifact  # its outputs are logits; of an encoder: its cluster probe
    samples: CleanSamples
    predictions: Tensor | None  # (N,) int64 of the full model on the samples; None without samples
    preconditions: Preconditions
    profile: DataProfile | None  # of the samples
    compared_with: ComparedWith | None  # None: there are no reference models
    deployment: DeploymentCheck | None = None  # None: not asked
    input_check: InputCheck | None = None  # None: not made

    @property
    def is_encoder(self) -> bool:
        """True for an encoder, False for a classifier."""
        return find_cluster_probe(self.artifact.module) is not None

    @property
    def seconds_of_deployment(self) -> float:
        """Seconds of the deployment check, which counts for the budget; 0 without one."""
        return 0.0 if self.deployment is None else self.deployment.seconds

    def with_differences(self, differences: tuple[DeploymentDifference, ...]) -> AuditInputs:
        """Return the inputs with more differences of the deployment check: those of found triggers."""
        if self.deployment is None or not differences:
            return self
        deployment = replace(self.deployment, differences=(*self.deployment.differences, *differences))
        preconditions = replace(self.preconditions, trigger=differences[0].sentence)
        return replace(self, deployment=deployment, preconditions=preconditions)


@dataclass(frozen=True)
class Plan:
    """Variants, and tests in the order of the report. ``plan.execution_order`` is another one."""

    variants: tuple[str, ...]
    tests: tuple[tuple[str, Detector], ...]  # pairs of variant and detector

    def detectors_on(self, variant: str) -> tuple[Detector, ...]:
        """Return the detectors to run on one variant."""
        return tuple(detector for name, detector in self.tests if name == variant)


@dataclass(frozen=True)
class RunContext:
    """Settings and callbacks of a run."""

    seed: int
    budget: Budget = field(default_factory=Budget)
    progress: Step = lambda step, fraction: None
    known: Mapping[str, Finding] = field(default_factory=dict)  # findings by ``make_test_id``; these tests do not run
    on_finding: Callable[[Finding], None] = lambda finding: None  # receives each new finding
    jobs: int = 1  # processes that run the tests


@dataclass(frozen=True)
class AuditRun:
    """Findings of all tests, and the tested variants."""

    findings: tuple[Finding, ...]
    variants: tuple[VariantResult, ...]
    made: Mapping[str, Artifact]  # by name, the broken ones included; without large ones that have no trigger
