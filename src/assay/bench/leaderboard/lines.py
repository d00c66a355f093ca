"""Attack success along the chains, one chart an attack, as inline SVG. Colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from assay.bench.leaderboard.chains import Chain
from assay.bench.leaderboard.content import Board
from assay.bench.statistics import AttackRow, Figure
from assay.report.formatting import display_text, format_percent

WIDTH, LEFT, RIGHT, TOP, STEP = 400, 152, 386, 22, 25
"""Pixels; a chain takes STEP downwards."""

INDENT = 9
MOST_LETTERS = 21


@dataclass(frozen=True)
class Chart:
    """One attack on one task."""

    task: str
    attack: str
    svg: Markup


def charts(board: Board) -> list[Chart]:
    """A chart for each task and attack; the control has no attack success and gets none."""
    groups: dict[tuple[str, str], dict[str, AttackRow]] = {}
    for row in board.along:
        if row.attack not in board.controls:
            groups.setdefault((row.task, row.attack), {})[row.chain] = row
    valid = {(row.task, row.attack, row.chain): row.valid for row in board.attacks}
    made = []
    for (task, attack), rows in sorted(groups.items()):
        chains = [chain for chain in board.chains if chain.name in rows]
        holds = {chain.name: valid[task, attack, chain.name] > 0 for chain in chains}
        made.append(Chart(display_text(task), display_text(attack), _chart(chains, rows, holds)))
    return made


def _chart(chains: Sequence[Chain], rows: Mapping[str, AttackRow], holds: Mapping[str, bool]) -> Markup:
    heights = {chain.name: TOP + STEP * (index + 0.5) for index, chain in enumerate(chains)}
    height = TOP + STEP * len(chains) + 4
    parts = [*_grid(height)]
    for chain in chains:
        own = rows[chain.name].attack_success
        before = rows[chain.parent].attack_success if chain.parent is not None and chain.parent in rows else None
        if own is not None and before is not None:
            parts.append(_segment(before.value, heights[chain.parent or ""], own.value, heights[chain.name]))
    for chain in chains:
        parts += _row(chain, rows[chain.name], heights[chain.name], holds[chain.name])
    summary = "; ".join(f"{display_text(chain.name)} {_asr(rows[chain.name])}" for chain in chains)
    return Markup('<svg class="chart along" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, f"Attack success by chain: {summary}", Markup("").join(parts)
    )


def _grid(height: float) -> Iterator[Markup]:
    for share in (0, 0.25, 0.5, 0.75, 1):
        yield Markup('<path class="axis" d="M{} {}V{}"/>').format(_x(share), TOP, f"{height:g}")
        if share in (0, 0.5, 1):
            text = f"{100 * share:.0f} %"
            yield Markup('<text class="tick" x="{}" y="{}">{}</text>').format(_x(share), TOP - 8, text)


def _row(chain: Chain, row: AttackRow, y: float, holds: bool) -> Iterator[Markup]:
    name, indent = display_text(chain.name), INDENT * min(chain.depth, 5)
    most = MOST_LETTERS - indent // 6
    yield Markup('<text x="{}" y="{}">{}<title>{}</title></text>').format(
        indent, y + 3.5, name if len(name) <= most else name[: most - 1] + "…", name
    )
    if row.clean_accuracy is not None:
        yield Markup('<path class="ca" d="M{} {}v10"><title>CA {}</title></path>').format(
            _x(row.clean_accuracy.value), y - 5, format_percent(row.clean_accuracy.value)
        )
    if row.control is not None:
        yield Markup('<circle class="control" cx="{}" cy="{}" r="3"><title>control {}</title></circle>').format(
            _x(row.control.value), y, format_percent(row.control.value)
        )
    if row.attack_success is None:
        yield Markup('<text class="absent" x="{}" y="{}">{}</text>').format(_x(0) + 8, y + 3.5, _absence(row))
    else:
        yield from _point(row.attack_success, y, f"{name}: {_asr(row)}", "" if holds else " below")


def _point(figure: Figure, y: float, title: str, extra: str) -> Iterator[Markup]:
    yield Markup('<path class="whisker" d="M{} {y}H{}"/>').format(_x(figure.low), _x(figure.high), y=y)
    yield Markup('<circle class="asr{}" cx="{}" cy="{}" r="4.2"><title>{}</title></circle>').format(
        extra, _x(figure.value), y, title
    )


def _segment(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<path class="link" d="M{} {}L{} {}"/>').format(_x(x1), y1, _x(x2), y2)


def _x(share: float) -> float:
    return round(LEFT + share * (RIGHT - LEFT), 1)


def _asr(row: AttackRow) -> str:
    figure = row.attack_success
    if figure is None:
        return _absence(row)
    interval = f"{format_percent(figure.low)} to {format_percent(figure.high)}"
    return f"ASR {format_percent(figure.value)} ({interval}), n = {figure.n}"


def _absence(row: AttackRow) -> str:
    return "failed" if row.failed else "not run yet" if row.missing else "not measured"
