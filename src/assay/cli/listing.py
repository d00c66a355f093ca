"""``assay list``: what is built in."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from assay.cli import options, places, screen

SCHEMA = "assay.list/1"


def list_built_in(json: options.Json = None) -> int:
    """List attacks, detectors, stages, mitigations, variants and formats, with paper and MITRE ATLAS technique."""
    with places.answering(json) as answer:
        from assay.registry import catalogue

        entries = catalogue()
        answer({"schema": SCHEMA, "entries": [asdict(entry) for entry in entries]})
        if json == places.STDOUT:
            return 0
        for kind, group in groupby(entries, key=lambda entry: entry.kind):
            rows = [(e.name, f"{e.summary}\n{e.paper}" if e.paper else e.summary, e.technique) for e in group]
            screen.table(f"{kind}s", ("name", "what it does, and the paper", "ATLAS"), rows)
    return 0
