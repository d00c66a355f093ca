"""All that is known of one record, as labelled lines; and the pictures, as far as a page can carry them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from assay.bench.cells import Entry
from assay.bench.leaderboard.tables import data_text, is_rate, net_text, steps_text
from assay.bench.records import Record
from assay.bench.spec import Band
from assay.bench.statistics import Found
from assay.report.formatting import DASH, display_text, format_duration, format_label, format_number, format_percent

MOST_PICTURES = 16 * 2**20
"""Characters of pictures in the page; all of them are in records.json."""

PICTURE = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+=*")

LONGEST = 2000
ORDER = ("trigger", "before", "after", "planted: before", "planted: after")
"""Of a record's pictures, as people read them."""

Line = tuple[str, str]


def details(found: Sequence[Found]) -> tuple[list[dict[str, Any]], list[str]]:
    """For each record its lines and where its pictures are in the list of pictures that comes second."""
    pictures: dict[str, int] = {}
    shown: dict[int, dict[str, int]] = {}
    left = MOST_PICTURES
    for index in _by_turns(found):
        own = _pictures(found[index][1])
        left -= sum(len(uri) for uri in set(own.values()) - set(pictures))
        if left < 0:
            break
        shown[index] = {display_text(name, 60): pictures.setdefault(uri, len(pictures)) for name, uri in own.items()}
    return [_detail(*pair, shown.get(index)) for index, pair in enumerate(found)], list(pictures)


def _by_turns(found: Sequence[Found]) -> list[int]:
    """Those with pictures: first one of each task, chain, attack and method, then a second of each."""
    turns: Counter[tuple[str, ...]] = Counter()
    order = []
    for index, (entry, record) in enumerate(found):
        if _pictures(record):
            place = (entry.task, entry.chain, entry.attack, entry.cell.method)
            order.append((turns[place], index))
            turns[place] += 1
    return [index for _, index in sorted(order)]


def _pictures(record: Record) -> dict[str, str]:
    pictures = (record.result or {}).get("pictures")
    if not isinstance(pictures, Mapping):
        return {}
    found = {str(name): uri for name, uri in pictures.items() if isinstance(uri, str) and PICTURE.fullmatch(uri)}
    return dict(sorted(found.items(), key=lambda pair: ORDER.index(pair[0]) if pair[0] in ORDER else len(ORDER)))


def _detail(entry: Entry, record: Record, pictures: Mapping[str, int] | None) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "facts": [(name, display_text(text, LONGEST)) for name, text in _facts(entry, record) if text],
        "result": [(name, display_text(text, LONGEST)) for name, text in _result(record.result or {})],
    }
    if record.error:
        detail["error"] = display_text(record.error, LONGEST)
    if pictures:
        detail["pictures"] = pictures
    elif _pictures(record):
        detail["elsewhere"] = len(_pictures(record))
    return detail


def _facts(entry: Entry, record: Record) -> Iterator[Line]:
    cell, band = entry.cell, entry.cell.valid
    yield "Kind", cell.kind
    yield "Method", cell.method
    yield "Attack", entry.attack
    yield "Task", entry.task
    yield "Data", data_text(cell.task)
    yield "Begins with", net_text(cell.task)
    yield "Chain", entry.chain
    yield "Steps", steps_text(cell.steps)
    yield "Mitigation's steps", steps_text(cell.repair)
    yield "Seed", str(cell.seed)
    yield "Clean samples given", f"{cell.samples:,}" if cell.samples else ""
    yield "Counts as valid", band_text(band) if band else ""
    yield "State in the store", record.state
    yield "Time", format_duration(record.seconds) if record.seconds is not None else ""
    yield "Ran on", record.place or ""
    yield "Lost with its worker", f"{record.tries} times" if record.tries else ""
    yield "Key", record.key


def band_text(band: Band) -> str:
    """What an attack must reach, in words."""
    return (
        f"ASR of at least {100 * band.asr:g} %, {100 * band.lift:g} points above the control, at most "
        f"{100 * band.drop:g} points of clean accuracy lost, and a clean twin of at least {100 * band.accuracy:g} %"
    )


def _result(result: Mapping[str, Any], before: str = "") -> Iterator[Line]:
    for name, value in result.items():
        if name in ("pictures", "schema") or value == "":
            continue
        if is_rate(value):
            low, high = value["interval"]
            yield (
                before + format_label(name),
                f"{format_percent(value['value'])} ({format_percent(low)} to {format_percent(high)}; "
                f"n = {value['samples']:,})",
            )
        elif isinstance(value, Mapping):
            yield from _result(value, f"{before}{format_label(name)}: ")
        else:
            yield before + format_label(name), _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_number(value) if isinstance(value, float) else str(value)
