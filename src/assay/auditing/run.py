"""One audit in six steps: load, prepare, plan, run the tests, judge, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from assay._version import __version__
from assay.auditing.config import AuditConfig, DataSource, ModelSource, audit_keywords, python_call
from assay.auditing.deployment import check_deployment
from assay.auditing.describe import describe
from assay.auditing.detection import run_tests
from assay.auditing.facts import AuditInputs, AuditRun, Plan, RunContext
from assay.auditing.found_triggers import measure_found_triggers
from assay.auditing.input_check import check_inputs
from assay.auditing.inputs import attach_reference, clean_samples, detectors_of, load_model, null_of
from assay.auditing.known_findings import known_findings
from assay.auditing.limits import limits
from assay.auditing.plan import plan_audit
from assay.auditing.quick import quick_part, quick_scope
from assay.auditing.runner import possible_processes
from assay.auditing.trigger_sweep import choose_trigger, sweep_trigger
from assay.auditing.verdict import Verdict, decide
from assay.calibration.null import NullDistribution
from assay.calibration.reference import make_test_id
from assay.core.errors import UnusableInput
from assay.core.finding import FULL, Finding, Outcome
from assay.core.model import Artifact
from assay.core.options import ModelOptions
from assay.core.progress import Step
from assay.core.result import Audit, InputCheck, ModelInfo, QuickScope, SweepPoint
from assay.detectors.budget import Budget
from assay.formats.onnx.agreement import repeat_comparison
from assay.kinds import first_look
from assay.kinds.table import ADAPTER
from assay.nn.modes import eval_mode
from assay.sandbox import phases
from assay.stages.variants import DEFAULT

# Not part of the budget: reading of the data, and checks before the tests.
PREPARATION_SECONDS = 120.0


@dataclass(frozen=True)
class Callbacks:
    """Receivers of the state of an audit."""

    progress: Step = lambda step, fraction: None  # the current step, and the fraction done
    on_inputs: Callable[[InputCheck], None] = lambda check: None  # the input check, before the first test
    on_notes: Callable[[Sequence[str]], None] = lambda notes: None  # on stored findings, before the first test


@dataclass(frozen=True)
class Judgement:
    """Verdict, findings with p-values, and the sweep of the trigger behind them."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    sweep: tuple[SweepPoint, ...]
    quick: QuickScope | None = None  # None: the full audit


@dataclass(frozen=True)
class Call:
    """Facts about one call of the audit."""

    command: str  # repeats the audit
    seconds: float
    notes: tuple[str, ...] = ()  # on stored findings, in sentences for people


def run_audit(
    model: ModelSource,
    data: DataSource,
    options: ModelOptions,
    config: AuditConfig,
    *,
    command: str | None = None,
    callbacks: Callbacks = Callbacks(),
) -> Audit:
    """Audit a model.

    Args:
        model: A path or hub id, a module in memory, or a loaded model.
        data: Source of the clean samples.
        options: Loading options of the model.
        config: Settings of the audit.
        command: Repeats this audit, for the report; None: the call in Python.
        callbacks: Receivers of the state of the audit.

    Raises:
        UnusableInput: The model or the data cannot be used.
    """
    start = time.perf_counter()
    artifact = load(model, options, config)
    with eval_mode(artifact.module):
        with phases.running(config.budget + PREPARATION_SECONDS):
            inputs = prepare(artifact, data, config)
        if inputs.input_check is not None:
            callbacks.on_inputs(inputs.input_check)
        plan = plan_tests(inputs, config)
        part = quick_part(plan, inputs) if config.quick else plan
        known = known_findings(inputs, part, options, config)
        jobs, on_jobs = possible_processes(config.jobs)
        callbacks.on_notes([*known.notes, *on_jobs])
        with phases.running(config.budget):
            budget = Budget(config.budget - inputs.seconds_of_deployment)
            context = RunContext(config.seed, budget, callbacks.progress, known.found, known.add, jobs)
            run = run_tests(inputs, part, context)
            run, differences = measure_found_triggers(inputs, run, context)
            inputs = inputs.with_differences(differences)
            judgement = judge_run(inputs, plan, run, config, context)
    if command is None:
        command = python_call(model, data, audit_keywords(options, config))
    call = Call(command, time.perf_counter() - start, (*known.notes, *on_jobs))
    return report(inputs, run, judgement, config, call)


def load(model: ModelSource, options: ModelOptions, config: AuditConfig) -> Artifact:
    """Return the model, with its reference if one is given.

    Args:
        model: A path or hub id, a module in memory, or a loaded model.
        options: Loading options of the model.
        config: Settings of the audit.
    """
    base: str | Path | None = None
    if isinstance(model, str | Path):
        decided = config.null is not None or config.detectors is not None
        given = config.reference if isinstance(config.reference, str | Path) else None
        seen = first_look(model, options, base=given is not None, decided=decided)
        base = given if seen is not None and seen.kind.reader == ADAPTER else None
    if base is not None and (named := config.reference_setting):
        raise UnusableInput(
            f"expected no {named}, as the reference is the base model of the adapter {model}, got one. "
            "Fix: leave it out."
        )
    artifact = load_model(model, options, base=base)
    if config.reference is not None and base is None:
        artifact = attach_reference(artifact, load_model(config.reference, config.reference_options(options)))
    return replace(artifact, name=str(model)) if isinstance(model, str | Path) else artifact


def prepare(artifact: Artifact, data: DataSource, config: AuditConfig) -> AuditInputs:
    """Read the samples and match the reference models.

    Args:
        artifact: The model, with its reference if there is one.
        data: Source of the clean samples.
        config: Settings of the audit.

    Raises:
        UnusableInput: The data do not fit the model, the null is of another kind of model, or an output is not finite.
    """
    samples = clean_samples(data, artifact, seed=config.seed, labels=config.labels, label_column=config.label_column)
    if len(samples.split):
        # A model may hang on real samples only. The next steps report errors.
        with phases.reading(f"the first run of {artifact.name}"), suppress(Exception), torch.no_grad():
            artifact.module(samples.split.x[:1])
    artifact = repeat_comparison(artifact, samples.split.x)
    deployment = check_deployment(artifact, samples.split, seed=config.seed, budget=Budget(config.budget))
    null = null_of(config.null, encoders=artifact.num_classes is None)
    inputs = describe(artifact, samples, null, seed=config.seed)
    preconditions = replace(inputs.preconditions, deployment=deployment.doubt)
    check = check_inputs(inputs.artifact, inputs.samples)
    return replace(inputs, deployment=deployment, preconditions=preconditions, input_check=check)


def plan_tests(inputs: AuditInputs, config: AuditConfig) -> Plan:
    """Return the variants and the detectors of an audit.

    Args:
        inputs: The model and the samples.
        config: Settings of the audit.
    """
    detectors = None if config.detectors is None else detectors_of(config.detectors)
    null = None if inputs.compared_with is None else inputs.compared_with.overall
    return plan_audit(inputs.artifact, audited_variants(inputs, config), detectors, null)


def audited_variants(inputs: AuditInputs, config: AuditConfig) -> tuple[str, ...]:
    """Return the variants to audit: of an encoder only the full model by default.

    Deployed variants are made of the downstream classifier, and are audited with it.

    Args:
        inputs: The model.
        config: Settings of the audit.
    """
    return (FULL,) if inputs.is_encoder and config.variants == DEFAULT else config.variants


def judge_run(inputs: AuditInputs, plan: Plan, run: AuditRun, config: AuditConfig, context: RunContext) -> Judgement:
    """Return the verdict, the p-values, and the sweep of the trigger behind them.

    Args:
        inputs: The model, the samples and the reference models.
        plan: The tests of the full audit.
        run: Findings of all of them, or of those of the quick audit.
        config: Settings of the audit.
        context: Seed, budget and progress.
    """
    quick = quick_scope(plan, run.findings) if config.quick else None
    verdict, null = decide(run.findings, run.variants, inputs.compared_with, inputs.preconditions, quick)
    findings = tuple(calibrate(finding, null) for finding in run.findings)
    trigger = None if config.quick else choose_trigger(findings, verdict.strongest, plan)
    if trigger is None:
        return Judgement(verdict, findings, (), quick)
    audited = {name: run.made.get(name) for name in audited_variants(inputs, config)}
    return Judgement(verdict, findings, sweep_trigger(inputs.artifact, inputs.samples.split, trigger, audited, context))


def calibrate(finding: Finding, null: NullDistribution | None) -> Finding:
    """Return a finding with its p-value against the reference models behind the verdict.

    Args:
        finding: Finding of one test.
        null: The reference models; None: there are none.
    """
    if finding.outcome is not Outcome.SCORED or finding.score is None or null is None:
        return finding
    test = make_test_id(finding.variant, finding.detector)
    return replace(finding, p_value=null.p_value(test, finding.score), null_scores=tuple(null.scores(test).tolist()))


def report(inputs: AuditInputs, run: AuditRun, judgement: Judgement, config: AuditConfig, call: Call) -> Audit:
    """Return the result of an audit.

    Args:
        inputs: The model and the samples.
        run: Variants of the run.
        judgement: Verdict and findings.
        config: Settings of the audit.
        call: Command, duration and notes.
    """
    artifact, samples, verdict = inputs.artifact, inputs.samples, judgement.verdict
    return Audit(
        verdict=verdict.word,
        reason=verdict.reason,
        p_value=verdict.p_value,
        false_alarm_rate=verdict.rate,
        statistic=verdict.statistic,
        target=verdict.target,
        strongest=verdict.strongest,
        model=ModelInfo(
            path=artifact.name,
            digest=artifact.digest,
            format=artifact.format,
            modality=str(artifact.modality),
            num_classes=None if inputs.is_encoder else artifact.num_classes,
            planted=artifact.planted,
            arch=artifact.arch,
            class_names=artifact.class_names or samples.class_names,
            shape=artifact.inputs.shape,
            files=artifact.files,
        ),
        findings=judgement.findings,
        variants=run.variants,
        limits=limits(
            judgement.findings,
            run.variants,
            labelled=samples.split.y is not None,
            unexamined_outputs=artifact.unexamined_outputs,
            quick=judgement.quick,
        ),
        data_name=samples.name,
        data_samples=len(samples.split),
        null=verdict.null,
        seconds=call.seconds,
        seed=config.seed,
        version=__version__,
        command=call.command,
        trigger_sweep=judgement.sweep,
        notes=(*artifact.notes, *samples.notes, *call.notes),
        deployment=inputs.deployment,
        input_check=inputs.input_check,
        data_digest=samples.split.digest(),
        quick=judgement.quick,
    )
