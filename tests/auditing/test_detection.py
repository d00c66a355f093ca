"""Running the tests of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from support.toys import artifact_of, toy

from assay.auditing.detection import run_tests
from assay.auditing.facts import AuditInputs, CleanSamples, Plan, Preconditions, RunContext
from assay.core.dataset import Split
from assay.core.finding import FULL, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement

NET, X, _ = toy(4, None)
SAMPLES = Split(X[:64], None)


@dataclass
class Fixed(Detector):
    """Detector with a fixed score, which keeps the list of its runs."""

    name: str  # type: ignore[misc]
    score: float = 1.0
    runs: list[str] = field(default_factory=list)

    title: ClassVar[str] = "a fixed score"
    needs: ClassVar[Requirement] = Requirement.NONE

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        self.runs.append(artifact.digest)
        return Finding(self.name, Outcome.SCORED, score=self.score, target=0)


def inputs() -> AuditInputs:
    """Return the inputs of an audit of a tiny classifier."""
    artifact = artifact_of(NET, 4)
    with torch.no_grad():
        predictions = artifact.module(SAMPLES.x).argmax(1)
    return AuditInputs(artifact, CleanSamples("toy", SAMPLES), predictions, Preconditions(64), None, None)


def plan_of(variants: tuple[str, ...], detectors: tuple[Detector, ...]) -> Plan:
    """Return the plan of all detectors on all variants."""
    return Plan(variants, tuple((name, detector) for name in variants for detector in detectors))


def test_known_findings_are_taken_and_only_new_ones_are_reported() -> None:
    first, second = Fixed("first"), Fixed("second", 2.0)
    known = Finding("first", Outcome.SCORED, score=7.0)
    new: list[Finding] = []
    context = RunContext(0, known={"full/first": known}, on_finding=new.append)
    run = run_tests(inputs(), plan_of((FULL,), (first, second)), context)
    assert [finding.score for finding in run.findings] == [7.0, 2.0]
    assert (first.runs, len(second.runs)) == ([], 1)
    assert new == [run.findings[1]]
