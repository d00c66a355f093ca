"""Content of the HTML page: texts, images and charts. The template defines only the layout."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from markupsafe import Markup

from assay.core.finding import Finding, Outcome
from assay.core.result import Audit, SweepPoint, VariantResult
from assay.report import charts, selection
from assay.report.evidence import Bars, Exhibit, bars_of, exhibit_of
from assay.report.formatting import (
    DASH,
    class_name,
    display_text,
    format_duration,
    format_label,
    format_number,
    format_odds,
    format_p_value,
    format_percent,
)

Tone = Literal["bad", "good", "unsure", "none"]  # CSS class
TONES: dict[str, Tone] = {"backdoored": "bad", "clean": "good", "inconclusive": "unsure"}


@dataclass(frozen=True)
class FindingView:
    """One detector on one variant."""

    name: str
    tone: Tone
    has_score: bool
    result: str
    score: str
    p_value: str
    target: str
    seconds: str
    reason: str
    is_proven: bool
    technique: str
    numbers: tuple[tuple[str, str], ...]
    chart: Markup | None
    chart_note: str
    bars: Bars | None
    exhibit: Exhibit | None
    is_open: bool


@dataclass(frozen=True)
class VariantView:
    """One variant of the model."""

    name: str
    spec: str
    accuracy: str
    agreement: str
    strongest: str
    strongest_p: str
    tone: Tone
    result: str
    not_tested_reason: str
    findings: tuple[FindingView, ...]


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    tone: Tone
    verdict: str
    status: str  # the verdict for programs
    sentence: str
    reason: str
    meaning: tuple[str, ...]
    planted: str
    strongest: FindingView | None
    strongest_variant: str
    variants: tuple[VariantView, ...]
    chart: Markup | None
    chart_note: str
    sweep: tuple[tuple[str, Markup], ...]  # by kind of compression
    sweep_trigger: str  # origin of the trigger
    limits: tuple[str, ...]
    command: str
    input: str
    input_check: tuple[tuple[str, str], ...]  # name and line
    deployment: tuple[tuple[str, str], ...]  # way of asking and its result
    deployment_line: str  # for the terminal
    differences: tuple[str, ...]  # between two ways of asking
    facts: tuple[tuple[str, str], ...]


def page_of(audit: Audit) -> Page:
    """Return the content of the page of ``audit``."""
    tone = TONES[audit.verdict]
    decisive = selection.decisive_findings(audit)
    strongest = selection.strongest_finding(audit, decisive)
    null = audit.null.statistics if audit.null else ()
    differences = () if audit.deployment is None else audit.deployment.differences
    input_check = {} if audit.input_check is None else asdict(audit.input_check)
    sweep: dict[str, list[SweepPoint]] = {}
    for point in audit.trigger_sweep:
        sweep.setdefault(point.kind, []).append(point)
    return Page(
        title=display_text(audit.model.path) or "model",
        tone=tone,
        verdict=audit.verdict.capitalize(),
        status=audit.status,
        sentence=_sentence(audit),
        reason=display_text(audit.reason, 1000),
        meaning=tuple(_meaning(audit)),
        planted="" if audit.model.planted is None else display_text(audit.model.planted, 600) or "(empty)",
        strongest=None if strongest is None else _finding(audit, strongest, decisive, strongest, large=True),
        strongest_variant="" if strongest is None else display_text(strongest.variant, 60),
        variants=tuple(_variants(audit, decisive, strongest)),
        chart=charts.null_chart(null, audit.statistic, tone=tone, name="Combined statistic"),
        chart_note=_rank_note(null, audit.statistic),
        sweep=tuple((kind, charts.sweep_chart(kind, points)) for kind, points in sweep.items()),
        sweep_trigger=_sweep_trigger(audit),
        limits=tuple(display_text(limit, 1000) for limit in audit.limits),
        command=display_text(audit.command, 1000),
        input=_input(audit),
        input_check=tuple((name.capitalize(), display_text(line, 1000)) for name, line in input_check.items()),
        deployment=_deployment(audit),
        deployment_line=_deployment_line(audit),
        differences=tuple(
            display_text(f"{part.sentence[:1].upper()}{part.sentence[1:]}.", 600) for part in differences
        ),
        facts=tuple(_facts(audit)),
    )


def _sweep_trigger(audit: Audit) -> str:
    if not audit.trigger_sweep:
        return ""
    variant, _, detector = audit.trigger_sweep[0].test.rpartition("/")
    name = class_name(audit, audit.trigger_sweep[0].target)
    return f"Trigger found by {detector} in variant {variant}. Target: {name}."


def _sentence(audit: Audit) -> str:
    tested = sum(not variant.reason for variant in audit.variants)
    if audit.verdict == "clean":
        return f"No backdoor found in {'the model as given' if tested <= 1 else f'the {tested} tested variants'}."
    if audit.quick is not None and audit.verdict == "inconclusive" and audit.false_alarm_rate is not None:
        return "The quick audit found no backdoor. It cannot show that there is none."
    if audit.verdict == "inconclusive":
        return "The audit could not decide whether the model has a backdoor."
    if audit.target is None:
        return "This model very likely has a backdoor."
    name = class_name(audit, audit.target)
    if audit.model.num_classes is None:
        return f"This encoder very likely has a backdoor: triggered inputs get nearly the same embedding, in {name}."
    return f"This model very likely has a backdoor. Target class: “{name}”."


def _meaning(audit: Audit) -> list[str]:
    """Return the p-value and the false-alarm rate in words."""
    lines = []
    has_rate = audit.verdict != "inconclusive" or audit.false_alarm_rate is not None
    if audit.p_value is not None and math.isfinite(audit.p_value) and has_rate:
        lines.append(
            f"About {format_odds(audit.p_value)} clean models look at least this suspicious "
            f"(p\u00a0{_equals(format_p_value(audit.p_value))})."
        )
    rate = audit.false_alarm_rate
    if rate is not None and rate > 0 and math.isfinite(rate):
        what = "The whole audit, with all tests on all variants,"
        if audit.quick is not None:
            what = f"This quick audit, with its {len(audit.quick.completed)} of {audit.quick.of} tests,"
        lines.append(f"{what} raises a false alarm on about {format_odds(rate)} clean models ({format_percent(rate)}).")
    if not has_rate:
        return lines or ["No error rate: the audit was inconclusive."]
    if any(finding.proof for finding in audit.findings):
        return lines or ["No error rate: the backdoor was found directly, not inferred from scores."]
    return lines or ["No error rate: there were no reference models to compare the scores with."]


def _variants(audit: Audit, decisive: tuple[Finding, ...], strongest: Finding | None) -> list[VariantView]:
    known = {variant.name for variant in audit.variants}
    extra = {finding.variant: None for finding in audit.findings if finding.variant not in known}
    variants = [*audit.variants, *(VariantResult(name, "", None) for name in extra)]
    return [_variant(audit, variant, decisive, strongest) for variant in variants]


def _variant(
    audit: Audit, variant: VariantResult, decisive: tuple[Finding, ...], strongest: Finding | None
) -> VariantView:
    findings = [finding for finding in audit.findings if finding.variant == variant.name]
    top = selection.strongest_finding(audit, findings)
    is_backdoored = any(_is_among(finding, decisive) for finding in findings)
    tone, result = _variant_result(audit, variant, top, is_backdoored)
    return VariantView(
        name=display_text(variant.name, 60),
        spec=display_text(variant.spec),
        accuracy=format_percent(variant.accuracy),
        agreement=format_percent(variant.agreement),
        strongest=DASH if top is None else display_text(top.detector, 60),
        strongest_p="" if top is None or top.p_value is None else f"p\u00a0{_equals(format_p_value(top.p_value))}",
        tone=tone,
        result=result,
        not_tested_reason=display_text(variant.reason, 600),
        findings=tuple(_finding(audit, finding, decisive, strongest) for finding in findings),
    )


def _variant_result(audit: Audit, variant: VariantResult, top: Finding | None, is_backdoored: bool) -> tuple[Tone, str]:
    if variant.reason or top is None:
        return "none", "not tested"
    if is_backdoored:
        return "bad", "backdoor found"
    if audit.verdict == "inconclusive":
        return "unsure", "undecided"
    return ("none", "not compared") if top.p_value is None else ("good", "nothing found")


def _finding(
    audit: Audit, finding: Finding, decisive: tuple[Finding, ...], strongest: Finding | None, *, large: bool = False
) -> FindingView:
    tone, result = _finding_result(audit, finding, decisive)
    name, target = display_text(finding.detector, 60), class_name(audit, finding.target)
    return FindingView(
        name=name,
        tone=tone,
        has_score=finding.outcome.completed,
        result=result,
        score=format_number(finding.score),
        p_value=format_p_value(finding.p_value),
        target=target,
        seconds=format_duration(finding.seconds),
        reason=display_text(finding.reason, 600),
        is_proven=bool(finding.proof),
        technique=display_text(finding.technique, 40),
        numbers=tuple(
            (format_label(key), display_text(value) if isinstance(value, str) else format_number(float(value)))
            for key, value in finding.evidence.numbers.items()
        ),
        chart=charts.null_chart(finding.null_scores, finding.score, tone=tone, name=name),
        chart_note=_rank_note(finding.null_scores, finding.score),
        bars=bars_of(audit, finding),
        exhibit=exhibit_of(audit, finding, large=large),
        is_open=finding is strongest,
    )


def _finding_result(audit: Audit, finding: Finding, decisive: tuple[Finding, ...]) -> tuple[Tone, str]:
    if not finding.outcome.completed:
        return "none", finding.outcome
    if _is_among(finding, decisive):
        return "bad", "suspicious"
    if finding.outcome is not Outcome.SCORED:
        return ("unsure", "needs review") if finding.score else ("good", "nothing found")
    p = selection.finite_p_value(finding)
    if p is None:
        return "none", "not calibrated"
    # One low p-value among many tests is expected of clean models. Only the combined statistic decides.
    if p <= (audit.false_alarm_rate or 0.0):
        return "unsure", "low p, not decisive"
    return "good", "like clean models"


def _is_among(finding: Finding, others: tuple[Finding, ...]) -> bool:
    # By identity: findings contain arrays, and == of arrays gives no single bool.
    return any(finding is other for other in others)


def _rank_note(null: tuple[float, ...], score: float | None) -> str:
    if not null or score is None or not math.isfinite(score):
        return ""
    beyond = sum(value >= score for value in null)
    count = "None" if beyond == 0 else str(beyond)
    return f"{count} of {len(null)} clean reference models {'score' if beyond != 1 else 'scores'} as high or higher."


def _equals(p: str) -> str:
    return p.replace("< ", "<\u00a0") if p.startswith("<") else f"=\u00a0{p}"


def _input(audit: Audit) -> str:
    shape = audit.model.shape
    if shape is None:
        return DASH
    if len(shape) == 1:
        return f"{shape[0]} tokens"
    return f"{' × '.join(map(str, shape))} (channels × height × width)"


def _deployment(audit: Audit) -> tuple[tuple[str, str], ...]:
    """Return each way of asking the model, with its result."""
    if audit.deployment is None:
        return ()
    return tuple(
        (way.name, f"not asked: {way.reason}" if way.reason else "agrees" if way.agrees else "differs")
        for way in audit.deployment.ways
    )


def _deployment_line(audit: Audit) -> str:
    """Return the deployment check in one line; empty if there are differences."""
    if audit.deployment is None or audit.deployment.differences:
        return ""
    asked = [way.name for way in audit.deployment.ways if way.agrees]
    return f"Asked {', '.join(asked)}: same answers." if asked else ""


def _facts(audit: Audit) -> list[tuple[str, str]]:
    model, null = audit.model, audit.null
    classes = "none (encoder)" if model.num_classes is None else f"{model.num_classes:,}"
    extent: tuple[tuple[str, str], ...] = ()
    reference = "none"
    if (quick := audit.quick) is not None:
        extent = (("Extent", f"quick audit: {len(quick.completed)} of {quick.of} tests"),)
    if null is not None:
        description = f": {display_text(null.description, 600)}" if null.description else ""
        reference = f"{null.models:,} clean models, {display_text(null.name)}{description}"
    return [
        ("Model", display_text(model.path)),
        ("SHA-256", display_text(model.digest)),
        ("Format", display_text(f"{model.format} · {model.modality}" + (f" · {model.arch}" if model.arch else ""))),
        ("Input", _input(audit)),
        ("Classes", classes),
        ("Data", f"{display_text(audit.data_name)} · {audit.data_samples:,} samples"),
        ("Reference models", reference),
        *extent,
        ("Seed", str(audit.seed)),
        ("Duration", format_duration(audit.seconds)),
        ("Version", f"assay {display_text(audit.version)}"),
        *(("Note", display_text(note, 600)) for note in audit.notes),
    ]
