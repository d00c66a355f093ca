"""Parts of the Markdown tables of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table, line by line."""
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def percent(rate: float | dict | None) -> str:
    """Return a rate in [0, 1] (plain, or with an interval) in percent; empty for None."""
    value = rate["value"] if isinstance(rate, dict) else rate
    return "" if value is None else f"{100 * value:.1f} %"


def area(figure: dict) -> str:
    """Return an AUC with its interval."""
    return f"{figure['auc']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
