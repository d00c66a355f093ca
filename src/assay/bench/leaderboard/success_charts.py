"""Charts of attack success along the chains, one per attack, as inline SVG. The style sheet sets the colors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from assay.bench.intervals import Estimate
from assay.bench.leaderboard.board import Board
from assay.bench.leaderboard.chains import ChainNode
from assay.bench.statistics import AttackRow
from assay.report.formatting import display_text, format_percent

WIDTH, LEFT, RIGHT, TOP = 400, 152, 386, 22  # of the chart and its plot, in pixels
CHAIN_HEIGHT = 25  # pixels
INDENT = 9  # pixels for each chain that a chain extends
MAX_INDENTS = 5
MAX_LETTERS = 21  # of a chain's name without indent


@dataclass(frozen=True)
class Chart:
    """One attack on one task."""

    task: str
    attack: str
    svg: Markup


def charts(board: Board) -> list[Chart]:
    """Return a chart for each task and attack, without the controls."""
    groups: dict[tuple[str, str], dict[str, AttackRow]] = {}
    for row in board.measured:
        if row.attack not in board.controls:
            groups.setdefault((row.task, row.attack), {})[row.chain] = row
    valid = {(row.task, row.attack, row.chain): row.valid for row in board.attacks}
    made = []
    for (task, attack), rows in sorted(groups.items()):
        chains = [chain for chain in board.chains if chain.name in rows]
        has_valid = {chain.name: valid[task, attack, chain.name] > 0 for chain in chains}
        made.append(Chart(display_text(task), display_text(attack), _chart(chains, rows, has_valid)))
    return made


def _chart(chains: Sequence[ChainNode], rows: Mapping[str, AttackRow], has_valid: Mapping[str, bool]) -> Markup:
    heights = {chain.name: TOP + CHAIN_HEIGHT * (index + 0.5) for index, chain in enumerate(chains)}
    height = TOP + CHAIN_HEIGHT * len(chains) + 4
    parts = [*_grid(height)]
    for chain in chains:
        own = rows[chain.name].attack_success
        before = rows[chain.parent].attack_success if chain.parent is not None and chain.parent in rows else None
        if own is not None and before is not None:
            parts.append(
                Markup('<path class="link" d="M{} {}L{} {}"/>').format(
                    _x(before.value), heights[chain.parent or ""], _x(own.value), heights[chain.name]
                )
            )
    for chain in chains:
        parts += _row(chain, rows[chain.name], heights[chain.name], has_valid[chain.name])
    summary = "; ".join(f"{display_text(chain.name)} {_success_text(rows[chain.name])}" for chain in chains)
    return Markup('<svg class="chart along" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, f"Attack success by chain: {summary}", Markup("").join(parts)
    )


def _grid(height: float) -> Iterator[Markup]:
    for rate in (0, 0.25, 0.5, 0.75, 1):
        yield Markup('<path class="axis" d="M{} {}V{}"/>').format(_x(rate), TOP, f"{height:g}")
        if rate in (0, 0.5, 1):
            text = f"{100 * rate:.0f} %"
            yield Markup('<text class="tick" x="{}" y="{}">{}</text>').format(_x(rate), TOP - 8, text)


def _row(chain: ChainNode, row: AttackRow, y: float, has_valid: bool) -> Iterator[Markup]:
    name, indent = display_text(chain.name), INDENT * min(chain.depth, MAX_INDENTS)
    letters = MAX_LETTERS - indent // 6
    yield Markup('<text x="{}" y="{}">{}<title>{}</title></text>').format(
        indent, y + 3.5, name if len(name) <= letters else name[: letters - 1] + "…", name
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
        yield from _point(row.attack_success, y, f"{name}: {_success_text(row)}", "" if has_valid else " below")


def _point(success: Estimate, y: float, title: str, extra_class: str) -> Iterator[Markup]:
    yield Markup('<path class="whisker" d="M{} {y}H{}"/>').format(_x(success.low), _x(success.high), y=y)
    yield Markup('<circle class="asr{}" cx="{}" cy="{}" r="4.2"><title>{}</title></circle>').format(
        extra_class, _x(success.value), y, title
    )


def _x(rate: float) -> float:
    return round(LEFT + rate * (RIGHT - LEFT), 1)


def _success_text(row: AttackRow) -> str:
    success = row.attack_success
    if success is None:
        return _absence(row)
    low, high = format_percent(success.low), format_percent(success.high)
    return f"ASR {format_percent(success.value)} ({low} to {high}), n = {success.n}"


def _absence(row: AttackRow) -> str:
    return "failed" if row.failed else "not run yet" if row.missing else "not measured"
