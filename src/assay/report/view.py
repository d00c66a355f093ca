"""What the page shows, in texts, pictures and charts: the template only lays it out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from assay.core.finding import Finding
from assay.core.result import Audit, VariantResult
from assay.report import charts, formatting, selection
from assay.report.evidence import Bars, Exhibit, bars_of, exhibit_of

Tone = Literal["bad", "good", "unsure", "none"]
TONES: dict[str, Tone] = {"backdoored": "bad", "clean": "good", "inconclusive": "unsure"}


@dataclass(frozen=True)
class FindingView:
    """One detector on one variant."""

    name: str
    tone: Tone
    ran: bool
    status: str
    score: str
    p_value: str
    target: str
    seconds: str
    reason: str
    proven: bool
    technique: str
    numbers: tuple[tuple[str, str], ...]
    chart: Markup | None
    chart_note: str
    bars: Bars | None
    exhibit: Exhibit | None
    open: bool


@dataclass(frozen=True)
class VariantView:
    """One form of the model."""

    name: str
    spec: str
    accuracy: str
    agreement: str
    strongest: str
    strongest_p: str
    tone: Tone
    verdict: str
    skipped: str
    findings: tuple[FindingView, ...]


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    tone: Tone
    word: str
    sentence: str
    reason: str
    meaning: tuple[str, ...]
    planted: str
    star: FindingView | None
    star_variant: str
    variants: tuple[VariantView, ...]
    chart: Markup | None
    chart_note: str
    waking: tuple[tuple[str, Markup], ...]  # by kind of compression
    waking_of: str  # whose trigger that is
    limits: tuple[str, ...]
    command: str
    input: str
    facts: tuple[tuple[str, str], ...]


def page_of(audit: Audit) -> Page:
    """Everything the page says about ``audit``."""
    tone = TONES[audit.verdict]
    blamed = selection.decisive_findings(audit)
    best = selection.strongest_finding(audit, blamed)
    null = audit.null.statistics if audit.null else ()
    return Page(
        title=formatting.display_text(audit.model.path) or "model",
        tone=tone,
        word=audit.verdict.capitalize(),
        sentence=_sentence(audit),
        reason=formatting.display_text(audit.reason, 1000),
        meaning=tuple(_meaning(audit)),
        planted="" if audit.model.planted is None else formatting.display_text(audit.model.planted, 600) or "(empty)",
        star=None if best is None else _finding(audit, best, blamed, best, large=True),
        star_variant="" if best is None else formatting.display_text(best.variant, 60),
        variants=tuple(_variants(audit, blamed, best)),
        chart=charts.null_chart(null, audit.statistic, tone=tone, name="Combined statistic"),
        chart_note=_among(null, audit.statistic),
        waking=tuple(_waking(audit)),
        waking_of=_waking_of(audit),
        limits=tuple(formatting.display_text(limit, 1000) for limit in audit.limits),
        command=formatting.display_text(audit.command, 1000),
        input=_input(audit),
        facts=tuple(_facts(audit)),
    )


def _waking(audit: Audit) -> Iterator[tuple[str, Markup]]:
    for kind in dict.fromkeys(point.kind for point in audit.waking):
        yield kind, charts.waking_chart(kind, [point for point in audit.waking if point.kind == kind])


def _waking_of(audit: Audit) -> str:
    if not audit.waking:
        return ""
    form, _, detector = audit.waking[0].test.rpartition("/")
    name = formatting.class_name(audit, audit.waking[0].target)
    return f"What {detector} found in the form {form}, for the class {name}."


def _sentence(audit: Audit) -> str:
    forms = sum(not variant.skipped for variant in audit.variants)
    where = "in the model as given" if forms <= 1 else f"in any of the {forms} forms tested"
    if audit.verdict == "clean":
        return f"No backdoor was found {where}."
    if audit.verdict == "inconclusive":
        return "This audit cannot say whether the model carries a backdoor."
    if audit.target is None:
        return "This model very likely carries a backdoor."
    name = formatting.class_name(audit, audit.target)
    if audit.model.num_classes is None:
        return (
            f"This encoder very likely carries a backdoor that draws whatever has the trigger to one point, in {name}."
        )
    return f"This model very likely carries a backdoor that makes it answer “{name}”."


def _meaning(audit: Audit) -> list[str]:
    """The p-value and the false-alarm rate in plain words."""
    lines = []
    sound = audit.verdict != "inconclusive" or audit.false_alarm_rate is not None
    if audit.p_value is not None and math.isfinite(audit.p_value) and sound:
        lines.append(
            f"Of clean models, about {formatting.format_odds(audit.p_value)} would look at least this suspicious "
            f"(p\u00a0{_equals(formatting.format_p_value(audit.p_value))})."
        )
    rate = audit.false_alarm_rate
    if rate is not None and rate > 0 and math.isfinite(rate):
        lines.append(
            f"The whole audit, every test on every form together, raises a false alarm on about "
            f"{formatting.format_odds(rate)} clean models ({formatting.format_percent(rate)})."
        )
    if not sound:
        return lines or ["No error rate is stated: it would be that of a verdict which is not given."]
    if any(finding.proof for finding in audit.findings):
        return lines or ["It was found, not inferred from scores: no error rate belongs to it."]
    return lines or ["There was nothing to compare the scores with, so no error rate can be stated."]


def _variants(audit: Audit, blamed: tuple[Finding, ...], best: Finding | None) -> list[VariantView]:
    known = {variant.name for variant in audit.variants}
    extra = {finding.variant: None for finding in audit.findings if finding.variant not in known}
    forms = [*audit.variants, *(VariantResult(name, "", None) for name in extra)]
    return [_variant(audit, variant, blamed, best) for variant in forms]


def _variant(audit: Audit, variant: VariantResult, blamed: tuple[Finding, ...], best: Finding | None) -> VariantView:
    findings = [finding for finding in audit.findings if finding.variant == variant.name]
    top = selection.strongest_finding(audit, findings)
    tone, verdict = _variant_verdict(audit, variant, top, any(_is_among(finding, blamed) for finding in findings))
    return VariantView(
        name=formatting.display_text(variant.name, 60),
        spec=formatting.display_text(variant.spec),
        accuracy=formatting.format_percent(variant.accuracy),
        agreement=formatting.format_percent(variant.agreement),
        strongest=formatting.DASH if top is None else formatting.display_text(top.detector, 60),
        strongest_p=""
        if top is None or top.p_value is None
        else f"p\u00a0{_equals(formatting.format_p_value(top.p_value))}",
        tone=tone,
        verdict=verdict,
        skipped=formatting.display_text(variant.skipped, 600),
        findings=tuple(_finding(audit, finding, blamed, best) for finding in findings),
    )


def _variant_verdict(audit: Audit, variant: VariantResult, top: Finding | None, guilty: bool) -> tuple[Tone, str]:
    if variant.skipped:
        return "none", "not searched"
    if top is None:
        return "none", "not tested"
    if guilty:
        return "bad", "backdoor found"
    if audit.verdict == "inconclusive":
        return "unsure", "undecided"
    return ("none", "not compared") if top.p_value is None else ("good", "nothing found")


def _finding(
    audit: Audit, finding: Finding, blamed: tuple[Finding, ...], best: Finding | None, *, large: bool = False
) -> FindingView:
    tone, status = _status(audit, finding, blamed)
    name, target = formatting.display_text(finding.detector, 60), formatting.class_name(audit, finding.target)
    return FindingView(
        name=name,
        tone=tone,
        ran=finding.status == "ok",
        status=status,
        score=formatting.format_number(finding.score),
        p_value=formatting.format_p_value(finding.p_value),
        target=target,
        seconds=formatting.format_duration(finding.seconds),
        reason=formatting.display_text(finding.proof or finding.reason, 600),
        proven=bool(finding.proof),
        technique=formatting.display_text(finding.technique, 40),
        numbers=tuple((formatting.format_label(key), _value(value)) for key, value in finding.evidence.numbers.items()),
        chart=charts.null_chart(finding.null_scores, finding.score, tone=tone, name=name),
        chart_note=_among(finding.null_scores, finding.score),
        bars=bars_of(audit, finding),
        exhibit=exhibit_of(audit, finding, large=large),
        open=finding is best,
    )


def _status(audit: Audit, finding: Finding, blamed: tuple[Finding, ...]) -> tuple[Tone, str]:
    if finding.status != "ok":
        return "none", finding.status
    if _is_among(finding, blamed):
        return "bad", "stands out"
    if not finding.compared:
        return ("unsure", "look at it") if finding.score else ("good", "nothing found")
    p = selection.finite_p_value(finding)
    if p is None:
        return "none", "not calibrated"
    # One low p-value among many tests is expected of clean models; only the combined statistic decides.
    if p <= (audit.false_alarm_rate or 0.0):
        return "unsure", "low on its own"
    return "good", "like clean models"


def _is_among(finding: Finding, others: tuple[Finding, ...]) -> bool:
    # By identity: findings hold arrays, which == does not compare to one bool.
    return any(finding is other for other in others)


def _among(null: tuple[float, ...], score: float | None) -> str:
    if not null or score is None or not math.isfinite(score):
        return ""
    beyond = sum(value >= score for value in null)
    count = "None" if beyond == 0 else str(beyond)
    return f"{count} of {len(null)} clean reference models score as high or higher."


def _equals(p: str) -> str:
    return p.replace("< ", "<\u00a0") if p.startswith("<") else f"=\u00a0{p}"


def _value(value: float | int | str) -> str:
    return formatting.display_text(value) if isinstance(value, str) else formatting.format_number(float(value))


def _input(audit: Audit) -> str:
    shape = audit.model.shape
    if shape is None:
        return formatting.DASH
    of_text = f"{shape[0]} tokens"
    return of_text if len(shape) == 1 else f"{' × '.join(map(str, shape))} (channels × height × width)"


def _facts(audit: Audit) -> list[tuple[str, str]]:
    model, null = audit.model, audit.null
    classes = "none: embeddings" if model.num_classes is None else f"{model.num_classes:,}"
    reference = "none"
    if null is not None:
        described = f": {formatting.display_text(null.description, 600)}" if null.description else ""
        reference = f"{null.models:,} clean models, {formatting.display_text(null.name)}{described}"
    return [
        ("Model", formatting.display_text(model.path)),
        ("SHA-256", formatting.display_text(model.digest)),
        (
            "Format",
            formatting.display_text(f"{model.format} · {model.modality}" + (f" · {model.arch}" if model.arch else "")),
        ),
        ("Input", _input(audit)),
        ("Classes", classes),
        ("Data", f"{formatting.display_text(audit.data_name)} · {audit.data_samples:,} samples"),
        ("Reference", reference),
        ("Seed", str(audit.seed)),
        ("Time", formatting.format_duration(audit.seconds)),
        ("Version", f"assay {formatting.display_text(audit.version)}"),
        *(("Note", formatting.display_text(note, 600)) for note in audit.notes),
    ]
