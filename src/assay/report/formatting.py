"""Numbers, names and odds as people read them. Names come from strangers' files and are made harmless here."""

from __future__ import annotations

import math
import unicodedata

from assay.core.result import Audit

DASH = "–"
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def display_text(text: str, limit: int = 200) -> str:
    """``text`` with characters that hide, reorder or break the line spelled out, cut in its middle to ``limit``."""
    if len(text) > limit:
        head = limit * 2 // 3
        text = f"{text[:head]}…{text[len(text) - (limit - head - 1) :]}"
    if text.isascii() and text.isprintable():  # nearly all there is: a page of many records is twice as fast
        return text
    return "".join(_spelled(char) if _hides(char) else char for char in text)


def _hides(char: str) -> bool:
    return char in _BIDI or char == "\ufeff" or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def _spelled(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def class_name(audit: Audit, target: int | None) -> str:
    """The class's own name where the model has names, else "class 3"."""
    names = audit.model.class_names
    if target is None:
        return DASH
    if names is None or not 0 <= target < len(names):
        return f"class {target}"
    return display_text(names[target], 60) or f"class {target}"


def format_number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def format_p_value(value: float | None) -> str:
    """A p-value: two significant digits, and never a bare 0."""
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def format_percent(value: float | None) -> str:
    """A share in [0, 1] as per cent with one decimal place."""
    return DASH if value is None or not math.isfinite(value) else f"{100 * value:.1f}\u00a0%"


def format_duration(seconds: float) -> str:
    """Seconds, or minutes and seconds from 100 s on."""
    if not math.isfinite(seconds):
        return DASH
    if 0 < seconds < 0.1:
        return "< 0.1 s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def format_odds(p: float) -> str:
    """A probability as a count: "1 in 20", "42 in 100"."""
    if p > 0.1:
        return f"{min(99, round(100 * p))} in 100"
    return f"1 in {round(1 / max(p, 1e-6)):,}"


def format_label(key: str) -> str:
    """A key of ``evidence.numbers`` as a label."""
    return display_text(key.replace("_", " "), 60)
