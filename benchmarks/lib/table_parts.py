"""Pieces of the tables in Markdown that the results are written as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown, line by line."""
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def percent(rate: float | dict | None) -> str:
    """A rate in [0, 1], bare or with its interval beside it; empty for none."""
    value = rate["value"] if isinstance(rate, dict) else rate
    return "" if value is None else f"{100 * value:.1f} %"


def area(figure: dict) -> str:
    """An AUC with its interval."""
    return f"{figure['auc']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
