"""Command ``assay verify``: check of a signed report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.failures import Verdict

# As of `assay audit`. An invalid report is unusable input, with code 2.
EXIT_CODES = {"pass": 0, "fail": 1, "unknown": 3}
STYLES = {"pass": "bold green", "fail": "bold red", "unknown": "bold yellow"}


def verify(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="A report folder, or its audit.intoto.jsonl.")],
    key: Annotated[Path, typer.Option(metavar="PUB.pem", help="Ed25519 public key of the expected signer.")],
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="The model's file or folder, to compare its digests.")
    ] = None,
    json: options.Json = None,
) -> int:
    """Check a signed report: its signature, its files, and the files of a model.

    Exit codes: 0 valid and pass, 1 valid and fail, 2 invalid, 3 valid and unknown.
    """
    with outputs.json_output(json) as write_json:
        from assay.report.attestation import check_model, facts, read_attestation
        from assay.report.keys import read_public_key

        found = read_attestation(report, read_public_key(key))
        others = None if model is None else check_model(found, model)
        screen.write(*(f"{label}: {text}" for label, text in facts(found)))
        compared = f"All files of {model} have the attested digests."
        if model is None:
            compared = "The model's files were not compared. Fix: give --model."
        screen.write(f"Valid: the signature and the reports. {compared}")
        if others:
            screen.write(f"Not part of the statement: {', '.join(others)}", style="yellow")
        screen.write(f"Status: {found.status}", style=STYLES[found.status])
        checked = model is not None
        write_json({"valid": True, "status": found.status, "model_checked": checked, "predicate": found.predicate})
    return Verdict(EXIT_CODES[found.status])
