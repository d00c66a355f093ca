"""Helpers to run commands and prepare their files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from safetensors.torch import load_file, save_file

from assay.calibration.file import save as save_null
from assay.detectors import default_detectors
from support.nulls import null_of_rows

ASSAY = Path(sys.executable).with_name("assay")


DATA = ("--data", "signs:3", "--limit", "150")
BRIEF = ("-o", "recipe.epochs=0.5", "-o", "recipe.batch_size=16")  # hardly any training
QUICK = ("-o", "recipe.epochs=8", "-o", "recipe.batch_size=32")  # enough for a backdoor


@dataclass(frozen=True)
class CommandResult:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., CommandResult]


def write_null(path: Path, score: float) -> Path:
    """Write a null of 120 reference models with scores just above ``score`` in every test. Return the path."""
    tests = [f"full/{detector.name}" for detector in default_detectors()]
    save_null(null_of_rows(dict.fromkeys(tests, score + i / 1000) for i in range(120)), path)
    return path


def audit_schema() -> dict[str, object]:
    """Return the published schema of the JSON of an audit."""
    return json.loads((resources.files("assay.report") / "audit.schema.json").read_text())


def assert_one_line(text: str) -> str:
    """Assert that ``text`` is one line with an error of assay. Return it."""
    assert text.count("\n") == 1, text
    assert text.startswith("assay: ")
    assert "Traceback" not in text
    return text


def write_weights(path: Path, planted: Path, *, metadata: dict[str, str] | None = None) -> Path:
    """Write the weights of a model without assay's metadata. Return the path."""
    save_file(load_file(planted / "model.safetensors"), path, metadata)
    return path


def run_process(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the installed command ``assay`` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    command = [str(argument) for argument in (ASSAY, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
