"""All fields of a record as labelled lines, and as many images as a page can hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from assay.bench.cells import MatrixEntry
from assay.bench.leaderboard.cell_text import data_text, initial_model_text, is_rate, steps_text
from assay.bench.records import Record
from assay.bench.spec import ValidityCriteria
from assay.bench.statistics import EntryRecord
from assay.report.formatting import DASH, display_text, format_duration, format_label, format_number, format_percent

MAX_IMAGE_CHARACTERS = 16 * 2**20  # in the page; records.json has all images
MAX_LINE = 2000  # characters of a line

_IMAGE = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+=*")
_IMAGE_ORDER = ("trigger", "before", "after", "planted: before", "planted: after")
_LABELS = {
    "asleep_success": "attack success as planted, before activation",
    "asleep_accuracy": "clean accuracy as planted, before activation",
}

Line = tuple[str, str]


def details(pairs: Sequence[EntryRecord]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the lines of each record, with the indices of its images, and the list of images."""
    images: dict[str, int] = {}
    shown: dict[int, dict[str, int]] = {}
    left = MAX_IMAGE_CHARACTERS
    for index in _image_turns(pairs):
        own = _images(pairs[index][1])
        left -= sum(len(uri) for uri in set(own.values()) - set(images))
        if left < 0:
            break
        shown[index] = {display_text(name, 60): images.setdefault(uri, len(images)) for name, uri in own.items()}
    return [_detail(*pair, shown.get(index)) for index, pair in enumerate(pairs)], list(images)


def _image_turns(pairs: Sequence[EntryRecord]) -> list[int]:
    """Return the records with images: first one of each task, chain, attack and method, then a second of each."""
    turns: Counter[tuple[str, ...]] = Counter()
    order = []
    for index, (entry, record) in enumerate(pairs):
        if _images(record):
            place = (entry.task, entry.chain, entry.attack, entry.cell.method)
            order.append((turns[place], index))
            turns[place] += 1
    return [index for _, index in sorted(order)]


def _images(record: Record) -> dict[str, str]:
    images = (record.result or {}).get("pictures")
    if not isinstance(images, Mapping):
        return {}
    valid = {str(name): uri for name, uri in images.items() if isinstance(uri, str) and _IMAGE.fullmatch(uri)}
    rank = {name: index for index, name in enumerate(_IMAGE_ORDER)}
    return dict(sorted(valid.items(), key=lambda pair: rank.get(pair[0], len(rank))))


def _detail(entry: MatrixEntry, record: Record, images: Mapping[str, int] | None) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "facts": [(name, display_text(text, MAX_LINE)) for name, text in _facts(entry, record) if text],
        "result": [(name, display_text(text, MAX_LINE)) for name, text in _result(record.result or {})],
    }
    if record.error:
        detail["error"] = display_text(record.error, MAX_LINE)
    if images:
        detail["pictures"] = images
    elif _images(record):
        detail["elsewhere"] = len(_images(record))
    return detail


def _facts(entry: MatrixEntry, record: Record) -> Iterator[Line]:
    cell, criteria = entry.cell, entry.cell.valid
    yield "Kind", cell.kind
    yield "Method", cell.method
    yield "Attack", entry.attack
    yield "Task", entry.task
    yield "Data", data_text(cell.task)
    yield "Initial model", initial_model_text(cell.task)
    yield "Chain", entry.chain
    yield "Steps", steps_text(cell.steps)
    yield "Mitigation's steps", steps_text(cell.repair)
    yield "Seed", str(cell.seed)
    yield "Clean samples given", f"{cell.samples:,}" if cell.samples else ""
    yield "Valid attack", criteria_text(criteria) if criteria else ""
    yield "State in the store", record.state
    yield "Time", format_duration(record.seconds) if record.seconds is not None else ""
    yield "Ran on", record.place or ""
    yield "Workers lost", str(record.tries) if record.tries else ""
    yield "Key", record.key


def criteria_text(criteria: ValidityCriteria) -> str:
    """Return the requirements for an attack as text."""
    return (
        f"ASR of at least {100 * criteria.asr:g} %, {100 * criteria.lift:g} points above the control, at most "
        f"{100 * criteria.drop:g} points of clean accuracy lost, and a clean control of at least "
        f"{100 * criteria.accuracy:g} % accuracy"
    )


def _result(result: Mapping[str, Any], prefix: str = "") -> Iterator[Line]:
    for name, value in result.items():
        label = prefix + _LABELS.get(name, format_label(name))
        if name in ("pictures", "schema") or value == "":
            continue
        if is_rate(value):
            low, high = (format_percent(end) for end in value["interval"])
            yield label, f"{format_percent(value['value'])} ({low} to {high}; n = {value['samples']:,})"
        elif isinstance(value, Mapping):
            yield from _result(value, f"{label}: ")
        else:
            yield label, _plain_text(value)


def _plain_text(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_number(value) if isinstance(value, float) else str(value)
