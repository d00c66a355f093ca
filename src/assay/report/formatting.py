"""Numbers, names and probabilities as text for people.

Names may come from untrusted files. ``display_text`` makes them safe to show.
"""

from __future__ import annotations

import math

from assay.core.result import Audit
from assay.io.display import escape_controls

DASH = "–"


def display_text(text: str, limit: int = 200) -> str:
    """Return ``text`` with unsafe characters escaped, shortened in the middle.

    Args:
        text: Any text, for instance from a model file.
        limit: Longest length before escaping, in characters.

    Returns:
        The text with an escape for each character that hides, reorders or breaks the line.
    """
    if len(text) > limit:
        head = limit * 2 // 3
        text = f"{text[:head]}…{text[len(text) - (limit - head - 1) :]}"
    return escape_controls(text)


def class_name(audit: Audit, target: int | None) -> str:
    """Return the name of a class, or "class 3" if the model has no names.

    Args:
        audit: The audit with the class names.
        target: The class index, or None for a dash.

    Returns:
        The name, safe to show, at most 60 characters before escaping.
    """
    names = audit.model.class_names
    if target is None:
        return DASH
    if names is None or not 0 <= target < len(names):
        return f"class {target}"
    return display_text(names[target], 60) or f"class {target}"


def format_number(value: float | None) -> str:
    """Return a number with three significant digits."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def format_p_value(value: float | None) -> str:
    """Return a p-value with two significant digits, never a bare 0."""
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def format_percent(value: float | None) -> str:
    """Return a fraction in [0, 1] as a percentage with one decimal place."""
    return DASH if value is None or not math.isfinite(value) else f"{100 * value:.1f}\u00a0%"


def format_duration(seconds: float) -> str:
    """Return seconds, or minutes and seconds from 100 s on."""
    if not math.isfinite(seconds):
        return DASH
    if 0 < seconds < 0.1:
        return "< 0.1 s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def format_odds(p: float) -> str:
    """Return a probability as a count: "1 in 20", "42 in 100"."""
    if p > 0.1:
        return f"{min(99, round(100 * p))} in 100"
    return f"1 in {round(1 / max(p, 1e-6)):,}"


def format_label(key: str) -> str:
    """Return a key of ``Evidence.numbers`` as a label."""
    return display_text(key.replace("_", " "), 60)
