"""Detection: make each variant of a model when it is due, and run the planned tests in their order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from assay.auditing.facts import AuditInputs, AuditRun, Plan, RunContext
from assay.auditing.plan import execution_order
from assay.auditing.remaining_time import MAKING, RemainingTime, Work
from assay.auditing.runner import Job, PlannedTest, run_jobs
from assay.auditing.variant_maker import (
    PASSES_PER_SAMPLE,
    MadeVariant,
    VariantMaker,
    is_large,
    prepare_measurement,
    too_long,
)
from assay.calibration.reference import make_test_id
from assay.core.finding import FULL, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress, duration_in_words
from assay.detectors.base import Detector
from assay.detectors.cost import expected_export_seconds, expected_passes
from assay.detectors.requirement import Requirement
from assay.formats.onnx.runtime import restart_sessions

# Seconds of one core for tracing a model, before its first test. ResNet-20: 3 s. It cannot stop in the middle.
TRACE_SECONDS = 3.0
_MEASURED = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES  # a test with one of these needs a traced model


def run_tests(inputs: AuditInputs, plan: Plan, context: RunContext) -> AuditRun:
    """Run all tests of a plan, in the order of ``execution_order``.

    Args:
        inputs: The model and the samples.
        plan: Variants and detectors.
        context: Settings, known findings and callbacks.

    Returns:
        The findings and the variants, in the order of the plan.
    """
    run = _Run(inputs, plan, context)
    for test, finding in run_jobs(run.jobs(), context.jobs, run.report):
        run.take(test, finding)
    return run.result()


class _Run:
    """State of one run.

    Args:
        inputs: The model and the samples.
        plan: Variants and detectors.
        context: Settings, known findings and callbacks.
    """

    def __init__(self, inputs: AuditInputs, plan: Plan, context: RunContext) -> None:
        self.inputs, self.plan, self.context = inputs, plan, context
        self.findings = dict(context.known)
        self.made: dict[str, MadeVariant] = {}
        many = context.jobs > 1 and context.budget.left() == math.inf
        order = execution_order(plan, inputs.artifact, longest_first=many)
        self.tests = [test for test in order if _id(*test) not in context.known]
        self.waiting = {_id(*test) for test in self.tests}  # tests without a finding yet
        self.time = RemainingTime(self._work(), context.jobs)
        self.maker = VariantMaker(inputs, context.seed, context.budget, self.time.expected)
        self.fraction = 0.0
        self.untraced = ""  # reason why the model is not traced

    def jobs(self) -> Iterator[Job]:
        """Yield the tests of each process when it is their turn. One process exports a graph once for all tests."""

        def one_export(entry: tuple[int, tuple[str, Detector]]) -> str | int:
            number, (name, detector) = entry
            return f"graph of {name}" if detector.expected_cost.exports else number

        for _, group in groupby(enumerate(self.tests), one_export):
            tests = [test for _, test in group]
            tested = self._variant(tests[0][0]).tested
            if tested is None:
                for test in tests:
                    self._end(_id(*test), completed=False)
            elif reason := self._obstacle(tests):
                for test in tests:
                    self.take(_id(*test), Finding(test[1].name, Outcome.INCOMPLETE, reason=reason))
            else:
                yield tuple(self._planned(detector, tested, _id(name, detector)) for name, detector in tests)

    def report(self, test: str, fraction: float) -> None:
        """Take the fraction done of a test, and pass on the state of the audit."""
        self.time.begin(test) if fraction == 0 else self.time.report(test, fraction)
        name, _, detector = test.partition("/")
        self._show(f"{name}: {detector}")

    def take(self, test: str, finding: Finding) -> None:
        """Take the finding of a test."""
        self.findings[test] = replace(finding, variant=test.partition("/")[0])
        self._end(test, completed=finding.outcome.completed)
        self.context.on_finding(self.findings[test])

    def result(self) -> AuditRun:
        """Return the findings and variants in the order of the plan, after all tests."""
        for name in self.plan.variants:  # those whose tests are all known
            self._variant(name)
        findings = (self.findings.get(_id(*test)) for test in self.plan.tests)
        artifacts = {name: self.made[name].artifact for name in self.plan.variants}
        self.context.progress("verdict", 1.0)
        return AuditRun(
            tuple(finding for finding in findings if finding is not None),
            tuple(self.made[name].result for name in self.plan.variants),
            {name: artifact for name, artifact in artifacts.items() if artifact is not None},
        )

    def _variant(self, name: str) -> MadeVariant:
        if name not in self.made:
            self.time.begin(name)
            self._show(f"making {name}")
            made = self.maker.make(name)
            if made.seconds_per_pass:
                self.time.measured(name, made.seconds_per_pass)
            if any(detector.needs & _MEASURED for variant, detector in self.tests if variant == name):
                # The first tracing takes seconds, the others share it.
                first = all(other.tested is None for other in self.made.values())
                if first and self.context.budget.left() < TRACE_SECONDS:
                    self.untraced = too_long(TRACE_SECONDS, self.context.budget)
                if not self.untraced:
                    prepare_measurement(made, self.inputs)
            self.made[name] = made
            self.time.end(name, completed=made.tested is not None)
        return self.made[name]

    def _obstacle(self, tests: Sequence[tuple[str, Detector]]) -> str:
        """Return the reason why tests cannot start within the budget; empty if they can."""
        _, detector = tests[0]
        expected = sum(self.time.expected(_id(*test)) for test in tests)
        if detector.expected_cost.exports and expected > self.context.budget.left():
            return too_long(expected, self.context.budget)
        return self.untraced if detector.needs & _MEASURED else ""

    def _end(self, test: str, *, completed: bool) -> None:
        """Take the end of a test. After the last one of a large variant, let go of it, unless a trigger acts on it."""
        self.time.end(test, completed=completed)
        self.waiting.discard(test)
        name = test.partition("/")[0]
        if any(other.startswith(f"{name}/") for other in self.waiting):
            return
        made = self.made[name]
        shows_trigger = any(
            finding.variant == name and finding.evidence.apply is not None for finding in self.findings.values()
        )
        is_kept = name == FULL or made.artifact is None or shows_trigger or not is_large(made.artifact)
        self.made[name] = replace(made, tested=None, artifact=made.artifact if is_kept else None)

    def _planned(self, detector: Detector, variant: Artifact, test: str) -> PlannedTest:
        context, clean = self.context, self.inputs.samples.split

        def run(progress: Progress) -> Finding:
            if context.jobs > 1:  # threads of a session do not survive a fork
                for model in (variant, variant.reference):
                    if model is not None:
                        restart_sessions(model.module)
            return detector(variant, clean, seed=context.seed, budget=context.budget, progress=progress)

        def failed(reason: str) -> Finding:
            return Finding(
                detector.name, Outcome.FAILED if detector.needs_null else Outcome.CHECK_FAILED, reason=reason
            )

        return PlannedTest(test, run, failed)

    def _show(self, step: str) -> None:
        """Report a step with the time left, in words. The fraction never falls."""
        self.fraction = max(self.fraction, self.time.fraction)
        tests = self.time.tests
        left = f"{tests} {'test' if tests == 1 else 'tests'} and about {duration_in_words(self.time.seconds)} left"
        self.context.progress(f"{step}, {left}", self.fraction)

    def _work(self) -> Iterator[Work]:
        """Yield the tests and the variants to make."""
        artifact, samples = self.inputs.artifact, len(self.inputs.samples.split)
        for name in dict.fromkeys(name for name, _ in self.tests):
            passes = 0.0 if name == FULL else float(PASSES_PER_SAMPLE * samples)
            yield Work(name, name, MAKING, passes, TRACE_SECONDS if name == FULL else 0.0)
        export = expected_export_seconds(artifact)
        for name, detector in self.tests:
            cost = detector.expected_cost
            seconds = export if cost.exports else 0.0
            export -= seconds  # one export serves all tests
            gradients = Requirement.GRADIENTS in detector.needs
            passes = expected_passes(cost, artifact)
            yield Work(_id(name, detector), name, detector.name, passes, seconds, gradients)


def _id(variant: str, detector: Detector) -> str:
    return make_test_id(variant, detector.name)
