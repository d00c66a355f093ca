"""``assay list``: the built-in attacks, detectors, stages, mitigations, variants and formats."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from assay.cli import options, outputs, screen

SCHEMA = "assay.list/1"


def list_built_in(json: options.Json = None) -> int:
    """List attacks, detectors, stages, mitigations, variants and formats, with papers and MITRE ATLAS techniques."""
    with outputs.json_output(json) as write_json:
        from assay.registry import catalog

        entries = catalog()
        write_json({"schema": SCHEMA, "entries": [asdict(entry) for entry in entries]})
        if json == outputs.STDOUT:
            return 0
        for kind, group in groupby(entries, key=lambda entry: entry.kind):
            rows = [(e.name, f"{e.summary}\n{e.paper}" if e.paper else e.summary, e.technique) for e in group]
            screen.table(f"{kind}s", ("name", "summary and paper", "ATLAS"), rows)
    return 0
