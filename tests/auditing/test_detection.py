"""Running the tests of a plan."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from support.toys import artifact_of, toy
from torch import Tensor

from assay.auditing import detection, variant_maker
from assay.auditing.detection import run_tests
from assay.auditing.facts import AuditInputs, CleanSamples, Plan, Preconditions, RunContext
from assay.core.dataset import Split
from assay.core.finding import FULL, Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.core.result import VariantOutcome
from assay.detectors import DepthScan, FourierKeys, Graph, MaxMargin, PatchScan
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.stages import variants as stage_variants

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


def record_making(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    """Note each variant that is made in ``log``."""
    make = stage_variants.make_and_run

    def noted(name: str, *args: object, **options: object) -> tuple[Artifact, Tensor | None]:
        log.append(f"making {name}")
        return make(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stage_variants, "make_and_run", noted)


def test_known_findings_are_taken_and_only_new_ones_are_reported() -> None:
    first, second = Fixed("first"), Fixed("second", 2.0)
    known = Finding("first", Outcome.SCORED, score=7.0)
    new: list[Finding] = []
    context = RunContext(0, known={"full/first": known}, on_finding=new.append)
    run = run_tests(inputs(), plan_of((FULL,), (first, second)), context)
    assert [finding.score for finding in run.findings] == [7.0, 2.0]
    assert (first.runs, len(second.runs)) == ([], 1)
    assert new == [run.findings[1]]


def test_variants_are_made_once_when_the_first_test_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    record_making(monkeypatch, log)
    plan = plan_of((FULL, "int4", "bf16"), (Fixed("one"), DepthScan()))
    context = RunContext(0, on_finding=lambda finding: log.append(f"{finding.variant}/{finding.detector}"))
    run = run_tests(inputs(), plan, context)
    assert log == [
        "full/depth-scan",
        "full/one",
        "making int4",
        "int4/depth-scan",
        "int4/one",
        "making bf16",
        "bf16/depth-scan",
        "bf16/one",
    ]
    assert [(f.variant, f.detector) for f in run.findings] == [(v, d.name) for v, d in plan.tests]
    assert [result.name for result in run.variants] == list(plan.variants) == list(run.made)


def test_large_variants_are_kept_for_a_found_trigger_only(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Shown(Fixed):
        def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
            finding = super().run(artifact, clean, seed=seed, budget=budget, progress=progress)
            return Finding(finding.detector, finding.outcome, score=1.0, evidence=Evidence(apply=torch.abs))

    monkeypatch.setattr(variant_maker, "LARGE_BYTES", 10)
    plan = Plan((FULL, "int4", "bf16"), ((FULL, Fixed("one")), ("int4", Fixed("one")), ("bf16", Shown("two"))))
    run = run_tests(inputs(), plan, RunContext(0))
    assert list(run.made) == [FULL, "bf16"]
    assert [result.outcome for result in run.variants] == [VariantOutcome.TESTED] * 3


def test_an_export_that_exceeds_the_budget_is_not_started() -> None:
    plan = plan_of((FULL,), (Graph(), FourierKeys(), Fixed("one")))
    run = run_tests(inputs(), plan, RunContext(0, Budget(3.2)))
    graph, key, one = run.findings
    assert (graph.outcome, key.outcome, one.outcome) == (Outcome.INCOMPLETE, Outcome.INCOMPLETE, Outcome.SCORED)
    assert "it takes about 4 seconds" in graph.reason
    assert "s left: raise the budget" in graph.reason


def test_tests_of_a_model_whose_tracing_exceeds_the_budget_are_not_started() -> None:
    run = run_tests(inputs(), plan_of((FULL,), (DepthScan(), MaxMargin(), Fixed("one"))), RunContext(0, Budget(2)))
    assert [f.outcome for f in run.findings] == [Outcome.INCOMPLETE, Outcome.INCOMPLETE, Outcome.SCORED]
    assert "it takes about 3 seconds" in run.findings[0].reason


def test_a_variant_that_exceeds_the_budget_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "PASSES_PER_SAMPLE", 10**9)
    run = run_tests(inputs(), plan_of((FULL, "int4"), (Fixed("one"),)), RunContext(0, Budget(60)))
    made, left_out = run.variants
    assert (made.outcome, left_out.outcome) == (VariantOutcome.TESTED, VariantOutcome.OUT_OF_TIME)
    assert "s left: raise the budget" in left_out.reason
    assert [finding.variant for finding in run.findings] == [FULL]


def test_progress_states_the_tests_and_the_time_left() -> None:
    steps: list[tuple[str, float]] = []
    context = RunContext(0, progress=lambda step, fraction: steps.append((step, fraction)))
    run_tests(inputs(), plan_of((FULL,), (Fixed("one"), MaxMargin())), context)
    assert steps[0][0].startswith("making full, 2 tests and about ")
    assert any(step.startswith("full: max-margin, 1 test and about ") for step, _ in steps)
    assert steps[-1] == ("verdict", 1.0)
    assert all(first <= second for (_, first), (_, second) in pairwise(steps))


def test_several_processes_give_the_same_findings_and_variants() -> None:
    detectors = (Graph(), FourierKeys(), DepthScan(), PatchScan(), MaxMargin())
    plan = plan_of((FULL, "int4"), detectors)
    serial, parallel = (run_tests(inputs(), plan, RunContext(0, jobs=jobs)) for jobs in (1, 2))
    assert serial.variants == parallel.variants
    for one, other in zip(serial.findings, parallel.findings, strict=True):
        assert one.outcome is other.outcome is not Outcome.FAILED
        assert (one.detector, one.variant, one.score, one.target) == (
            other.detector,
            other.variant,
            other.score,
            other.target,
        )
        assert one.evidence.numbers == other.evidence.numbers
        np.testing.assert_array_equal(np.asarray(one.evidence.after, float), np.asarray(other.evidence.after, float))
    assert len(serial.findings) == len(plan.tests)


def test_a_test_whose_process_dies_fails_and_the_others_are_there() -> None:
    @dataclass
    class Dies(Fixed):
        def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    run = run_tests(inputs(), plan_of((FULL,), (Dies("dies"), Fixed("one"))), RunContext(0, jobs=2))
    dead, alive = run.findings
    assert (dead.outcome, dead.detector, alive.outcome) == (Outcome.FAILED, "dies", Outcome.SCORED)
    assert dead.reason.startswith("its process ended by the signal SIGKILL")
