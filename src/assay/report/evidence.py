"""Evidence of a finding, as images, texts and bars for a page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from assay.core.finding import Evidence, Finding
from assay.core.result import Audit
from assay.io.images import change_map, data_uri, to_image, trigger_image
from assay.report import charts
from assay.report.formatting import class_name, display_text, format_number
from assay.report.graph_svg import graph_drawing

MAX_BARS = 20  # classes
MAX_SAMPLES = 6
MAX_TEXT_LENGTH = 240  # characters of a sample


@dataclass(frozen=True)
class ImageSample:
    """One image without and with the trigger, and the change, as ``data:`` addresses.

    The predicted classes are empty if they are not known.
    """

    before: str
    after: str
    change: str
    predicted_before: str
    predicted_after: str


@dataclass(frozen=True)
class TextSample:
    """One text without and with the trigger, and the predicted classes."""

    before: str
    after: str
    predicted_before: str
    predicted_after: str


@dataclass(frozen=True)
class Exhibit:
    """Images or texts of a finding; an empty string for each missing one."""

    trigger: str
    mask: str
    samples: tuple[ImageSample, ...]
    texts: tuple[TextSample, ...]
    target: str
    graph: Markup = Markup("")  # noqa: RUF009 (immutable); part of the computation graph


@dataclass(frozen=True)
class Bar:
    """One class."""

    name: str
    value: str
    bar: Markup
    is_target: bool


@dataclass(frozen=True)
class Bars:
    """One value per class, the most suspicious end first."""

    rows: tuple[Bar, ...]
    note: str


def exhibit_of(audit: Audit, finding: Finding, *, large: bool) -> Exhibit | None:
    """Return the images and texts of a finding, or None without any.

    Args:
        audit: The audit with the class names.
        finding: The finding to show.
        large: Use the size for the top of the page.
    """
    evidence, longest = finding.evidence, 320 if large else 128
    image = trigger_image(evidence) if evidence.trigger is not None else None
    exhibit = Exhibit(
        trigger="" if image is None else data_uri(image, longest),
        mask="" if evidence.mask is None else data_uri(to_image(evidence.mask), longest),
        samples=tuple(_image_samples(audit, evidence, 160 if large else 96)),
        texts=tuple(_text_samples(audit, evidence)),
        target=class_name(audit, finding.target) if finding.target is not None else "",
        graph=graph_drawing(evidence.graph),
    )
    has_content = exhibit.trigger or exhibit.mask or exhibit.samples or exhibit.texts or exhibit.graph
    return exhibit if has_content else None


def _image_samples(audit: Audit, evidence: Evidence, longest: int) -> list[ImageSample]:
    before, after = evidence.before, evidence.after
    if before is None or after is None or np.shape(before) != np.shape(after):
        return []
    predictions = _predictions(audit, evidence, len(before))[:MAX_SAMPLES]
    return [
        ImageSample(
            data_uri(to_image(clean), longest),
            data_uri(to_image(triggered), longest),
            data_uri(to_image(change_map(clean, triggered)), longest),
            *classes,
        )
        for clean, triggered, classes in zip(before[:MAX_SAMPLES], after[:MAX_SAMPLES], predictions, strict=True)
    ]


def _text_samples(audit: Audit, evidence: Evidence) -> list[TextSample]:
    predictions = _predictions(audit, evidence, len(evidence.texts))
    return [
        TextSample(display_text(before, MAX_TEXT_LENGTH), display_text(after, MAX_TEXT_LENGTH), *classes)
        for (before, after), classes in list(zip(evidence.texts, predictions, strict=True))[:MAX_SAMPLES]
    ]


def _predictions(audit: Audit, evidence: Evidence, count: int) -> list[tuple[str, str]]:
    """Return the predicted class names of ``count`` samples without and with the trigger; "" unless all are known."""
    if not len(evidence.predicted_before) == len(evidence.predicted_after) == count:
        return [("", "")] * count
    return [
        (class_name(audit, before), class_name(audit, after))
        for before, after in zip(evidence.predicted_before, evidence.predicted_after, strict=True)
    ]


def bars_of(audit: Audit, finding: Finding) -> Bars | None:
    """Return the finite values per class: at most 20, the target always among them; None without any."""
    values = {index: value for index, value in finding.evidence.per_class.items() if math.isfinite(value)}
    if not values:
        return None
    # For a trigger size, as in most detectors, low is suspicious. For other values, the target is above the median.
    high_first = finding.target in values and values[finding.target] > float(np.median(list(values.values())))
    order = sorted(values, key=lambda index: values[index], reverse=high_first)
    shown = order[:MAX_BARS]
    if finding.target in values and finding.target not in shown:
        shown[-1] = finding.target
    longest = max(abs(values[index]) for index in shown) or 1.0
    rows = [
        Bar(
            name=class_name(audit, index),
            value=format_number(values[index]),
            bar=charts.bar(abs(values[index]) / longest),
            is_target=index == finding.target,
        )
        for index in shown
    ]
    return Bars(tuple(rows), "" if len(shown) == len(values) else f"{len(shown)} of {len(values):,} classes shown")
