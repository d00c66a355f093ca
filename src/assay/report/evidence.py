"""A finding's evidence, made ready to be shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from assay.core.finding import Evidence, Finding
from assay.core.result import Audit
from assay.io.images import data_uri, difference, picture, trigger_picture
from assay.report import charts, formatting
from assay.report.graph_svg import graph_drawing

MOST_BARS = 20
MOST_SAMPLES = 6
LONGEST_TEXT = 240
"""Characters of a sample that are shown."""


@dataclass(frozen=True)
class Sample:
    """One input as it was, with the trigger, and what the trigger changed, as ``data:`` addresses.

    And the classes that the model gave it; empty where they are not known.
    """

    before: str
    after: str
    change: str
    said_before: str
    said_after: str


@dataclass(frozen=True)
class TextSample:
    """One text as it was and with the trigger, and the classes that the model gave them."""

    before: str
    after: str
    said_before: str
    said_after: str


@dataclass(frozen=True)
class Exhibit:
    """The pictures or texts of a finding; empty strings for what it has not."""

    trigger: str
    mask: str
    samples: tuple[Sample, ...]
    texts: tuple[TextSample, ...]
    target: str
    graph: Markup = Markup("")  # noqa: RUF009 (a string): a part of the computation graph


@dataclass(frozen=True)
class Bar:
    """One class."""

    name: str
    value: str
    bar: Markup
    target: bool


@dataclass(frozen=True)
class Bars:
    """A value for each class, the target's end of the scale first."""

    rows: tuple[Bar, ...]
    note: str


def exhibit_of(audit: Audit, finding: Finding, *, large: bool) -> Exhibit | None:
    """The pictures of ``finding``, ``large`` for the top of the page."""
    evidence, longest = finding.evidence, 320 if large else 128
    image = trigger_picture(evidence) if evidence.trigger is not None else None
    exhibit = Exhibit(
        trigger="" if image is None else data_uri(image, longest),
        mask="" if evidence.mask is None else data_uri(picture(evidence.mask), longest),
        samples=tuple(_samples(audit, evidence, 160 if large else 96)),
        texts=tuple(_texts(audit, evidence)),
        target=formatting.class_name(audit, finding.target) if finding.target is not None else "",
        graph=graph_drawing(evidence.graph),
    )
    shown = exhibit.trigger or exhibit.mask or exhibit.samples or exhibit.texts or exhibit.graph
    return exhibit if shown else None


def _samples(audit: Audit, evidence: Evidence, longest: int) -> list[Sample]:
    before, after = evidence.before, evidence.after
    if before is None or after is None or np.shape(before) != np.shape(after):
        return []
    return [
        Sample(
            data_uri(picture(clean), longest),
            data_uri(picture(triggered), longest),
            data_uri(picture(difference(clean, triggered)), longest),
            *said,
        )
        for clean, triggered, said in zip(
            before[:MOST_SAMPLES], after[:MOST_SAMPLES], _said(audit, evidence, len(before))[:MOST_SAMPLES], strict=True
        )
    ]


def _texts(audit: Audit, evidence: Evidence) -> list[TextSample]:
    said = _said(audit, evidence, len(evidence.texts))
    return [
        TextSample(
            formatting.display_text(before, LONGEST_TEXT), formatting.display_text(after, LONGEST_TEXT), *classes
        )
        for (before, after), classes in list(zip(evidence.texts, said, strict=True))[:MOST_SAMPLES]
    ]


def _said(audit: Audit, evidence: Evidence, count: int) -> list[tuple[str, str]]:
    """For each of ``count`` samples the names of what the model said before and after; "" unless all are known."""
    if not len(evidence.said_before) == len(evidence.said_after) == count:
        return [("", "")] * count
    return [
        (formatting.class_name(audit, before), formatting.class_name(audit, after))
        for before, after in zip(evidence.said_before, evidence.said_after, strict=True)
    ]


def bars_of(audit: Audit, finding: Finding) -> Bars | None:
    """The finite values per class, at most 20 of them, the target always among them."""
    values = {index: value for index, value in finding.evidence.per_class.items() if math.isfinite(value)}
    if not values:
        return None
    order = sorted(values, key=lambda index: values[index], reverse=_target_is_high(values, finding.target))
    shown = order[:MOST_BARS]
    if finding.target in values and finding.target not in shown:
        shown[-1] = finding.target
    longest = max(abs(values[index]) for index in shown) or 1.0
    rows = [
        Bar(
            name=formatting.class_name(audit, index),
            value=formatting.format_number(values[index]),
            bar=charts.bar(abs(values[index]) / longest),
            target=index == finding.target,
        )
        for index in shown
    ]
    return Bars(tuple(rows), "" if len(shown) == len(values) else f"{len(shown)} of {len(values):,} classes shown")


def _target_is_high(values: dict[int, float], target: int | None) -> bool:
    """Whether the target stands at the high end: most detectors measure a trigger's size, where small is suspicious."""
    return target in values and values[target] > float(np.median(list(values.values())))
