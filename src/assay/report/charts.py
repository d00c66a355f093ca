"""Charts as inline SVG. Colors come from the style sheet of the page, for light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from assay.core.result import SweepPoint
from assay.report.formatting import format_number, format_percent

WIDTH, HEIGHT = 380, 112  # SVG units
LEFT, RIGHT, BASE, TOP = 14, WIDTH - 14, 82, 24  # edges of the plot area
COLUMNS = 44  # bins of the null distribution


def null_chart(null: Sequence[float], score: float | None, *, tone: str, name: str) -> Markup | None:
    """Return the null distribution as stacked dots, or as bars for many models, with a marker at ``score``.

    Args:
        null: Values of the clean reference models.
        score: Value of this model, or None for no marker.
        tone: CSS class of the marker.
        name: Name of the value, for screen readers.

    Returns:
        The chart, or None without a finite value in ``null``.
    """
    values = [value for value in null if math.isfinite(value)]
    if not values:
        return None
    shown = score if score is not None and math.isfinite(score) else None
    points = values if shown is None else [*values, shown]
    low, high = min(points), max(points)
    margin = 0.05 * (high - low) or max(abs(low) * 0.1, 1e-6)
    low, high = low - margin, high + margin

    def position(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (RIGHT - LEFT)

    parts = [*_stacks([position(value) for value in values]), *_axis(low, high, position)]
    if shown is not None:
        parts.append(_marker(position(shown), format_number(shown), tone))
    extent = f"{format_number(min(values))} to {format_number(max(values))}"
    summary = f"{name}: {len(values)} clean reference models from {extent}"
    if shown is not None:
        summary += f"; this model {format_number(shown)}"
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, summary)
    return head + Markup("").join(parts) + Markup("</svg>")


def sweep_chart(kind: str, points: Sequence[SweepPoint]) -> Markup:
    """Return two lines over compression levels: agreement on clean samples and trigger success rate.

    Args:
        kind: Kind of compression, for screen readers.
        points: One point per compression level, in order.

    Returns:
        The chart.
    """
    steps = [point.step for point in points]
    columns = [LEFT + 20 + index * (RIGHT - LEFT - 40) / max(1, len(points) - 1) for index in range(len(points))]

    def line(values: Sequence[float], css_class: str) -> Markup:
        places = [f"{x:.1f},{BASE - value * (BASE - TOP):.1f}" for x, value in zip(columns, values, strict=True)]
        dots = [Markup('<circle cx="{}" cy="{}" r="3"/>').format(*place.split(",")) for place in places]
        path = Markup('<polyline points="{}"/>').format(" ".join(places))
        return Markup('<g class="line {}">').format(css_class) + path + Markup("").join(dots) + Markup("</g>")

    labels = [
        Markup('<text class="tick" x="{}" y="{}">{}</text>').format(f"{x:.1f}", BASE + 18, step)
        for x, step in zip(columns, steps, strict=True)
    ]
    summary = "; ".join(
        f"{step}: agreement {format_percent(point.agreement)}, success {format_percent(point.success)}"
        for step, point in zip(steps, points, strict=True)
    )
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}: {}">').format(
        WIDTH, HEIGHT, kind, summary
    )
    rails = [Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, y, RIGHT) for y in (BASE + 0.5, TOP - 0.5)]
    agreement, success = [point.agreement for point in points], [point.success for point in points]
    parts = [*rails, *labels, line(agreement, "agreement"), line(success, "success")]
    return head + Markup("").join(parts) + Markup("</svg>")


def bar(fraction: float) -> Markup:
    """Return a horizontal bar, filled to ``fraction`` in [0, 1] of its width."""
    width = 100 * min(1.0, max(0.0, fraction))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" width="100" height="8"/><rect class="fill" width="{}" height="8"/></svg>'
    ).format(f"{max(width, 0.6):.2f}")


def _stacks(positions: list[float]) -> list[Markup]:
    """Return one dot per position, stacked per bin; bars if a stack is too high."""
    step = (RIGHT - LEFT) / COLUMNS
    counts = [0] * COLUMNS
    for x in positions:
        counts[min(COLUMNS - 1, int((x - LEFT) / step))] += 1
    radius = step * 0.42
    if max(counts) * step <= BASE - TOP - 6:
        return [
            Markup('<circle class="dot" cx="{}" cy="{}" r="{}"/>').format(
                f"{LEFT + (column + 0.5) * step:.1f}", f"{BASE - (level + 0.5) * step:.1f}", f"{radius:.1f}"
            )
            for column, count in enumerate(counts)
            for level in range(count)
        ]
    unit = (BASE - TOP - 6) / max(counts)
    return [
        Markup('<rect class="dot" x="{}" y="{}" width="{}" height="{}" rx="1"/>').format(
            f"{LEFT + column * step + 0.6:.1f}",
            f"{BASE - count * unit:.1f}",
            f"{step - 1.2:.1f}",
            f"{count * unit:.1f}",
        )
        for column, count in enumerate(counts)
        if count
    ]


def _axis(low: float, high: float, position: Callable[[float], float]) -> list[Markup]:
    line = Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, BASE + 0.5, RIGHT)
    labels = [
        Markup('<path class="axis" d="M{0} {1}v4"/><text class="tick" x="{0}" y="{2}">{3}</text>').format(
            f"{position(value):.1f}", BASE + 0.5, BASE + 18, format_number(value)
        )
        for value in _ticks(low, high)
    ]
    return [line, *labels]


def _ticks(low: float, high: float) -> list[float]:
    """Return four to eight round values between ``low`` and ``high``."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.99)
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def _marker(x: float, text: str, tone: str) -> Markup:
    third = (RIGHT - LEFT) / 3
    anchor = "start" if x < LEFT + third else "end" if x > RIGHT - third else "middle"
    return Markup(
        '<g class="mark {tone}"><path class="stem" d="M{x} {top}V{base}"/>'
        '<path class="head" d="M{x} {base}l-5 -7h10z"/>'
        '<text x="{x}" y="{label}" text-anchor="{anchor}" dx="{dx}">this model {text}</text></g>'
    ).format(
        tone=tone,
        x=f"{x:.1f}",
        top=TOP - 6,
        base=BASE,
        label=TOP - 10,
        anchor=anchor,
        dx={"start": -4, "end": 4, "middle": 0}[anchor],
        text=text,
    )
