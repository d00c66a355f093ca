"""Result files ``benchmarks/results/NAME.json``: origin, reading, writing, and rows that a later run completes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch

from assay._version import __version__
from lib.commands import ALL, Shard
from lib.paths import RESULTS, ROOT

Row = dict[str, Any]


def origin() -> dict[str, object]:
    """Return date, machine, versions and command of this run."""
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":")[1].strip() for line in cpu if line.startswith("model name")), "?")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": date.today().isoformat(),
        "machine": f"{processor}, {os.cpu_count()} cores, {gpu}",
        "assay": __version__,
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": " ".join(sys.argv),
    }


def software_and_date() -> str:
    """Return the origin of this run in a few words, for descriptions."""
    now = origin()
    return f"{now['date']}, assay {now['assay']} at {now['commit']}, torch {now['torch']}"


def save_result(name: str, result: Row) -> None:
    """Write ``benchmarks/results/NAME.json`` with its origin."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"origin": origin(), **result}, indent=1) + "\n")
    print(f"-> benchmarks/results/{name}.json")


def load_result(name: str) -> Row:
    """Return ``benchmarks/results/NAME.json`` without its origin; empty without the file."""
    path = RESULTS / f"{name}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    return {key: value for key, value in result.items() if key != "origin"}


def load_models(name: str) -> dict[str, Row]:
    """Return the rows under ``models`` in ``benchmarks/results/NAME.json``; empty without the file."""
    return load_result(name).get("models", {})


class ResumableRows:
    """Rows of ``benchmarks/results/NAME.json``, one per model. A repeated run computes the missing rows only.

    Each row names the commit that measured it. The origin of the file is that of the row written last.
    """

    def __init__(self, name: str, summarize: Callable[[dict[str, Row]], Row] = lambda rows: {}) -> None:
        """Read the rows of earlier runs.

        Args:
            name: Name of the result file.
            summarize: Returns the other entries of the result file from all rows.
        """
        self.name, self.summarize = name, summarize
        self.rows = load_models(name)
        self.commit = origin()["commit"]

    def missing(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the names without a row."""
        return (name for name in names if name not in self.rows)

    def add(self, name: str, row: Row) -> None:
        """Print a row, add it, and save the result file."""
        print(name, row, flush=True)
        self.put(name, row)

    def put(self, name: str, row: Row) -> None:
        """Add a row with the commit of this run, and save the result file."""
        self.rows[name] = {**row, "commit": self.commit}
        save_result(self.name, {**self.summarize(self.rows), "models": self.rows})


class RowFiles:
    """Rows in files ``FOLDER/NAME.json``, one per model. Several processes can add rows at once."""

    def __init__(self, folder: Path, suffix: str = ".json") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.suffix = folder, suffix

    def path(self, name: str) -> Path:
        """Return the file of a row."""
        return self.folder / f"{name}{self.suffix}"

    def complete(self, names: Iterable[str], measure: Callable[[str], Row], shard: Shard = ALL) -> None:
        """Compute and write the missing rows of one shard.

        Args:
            names: All row names, in the same order in every process.
            measure: Returns the row of a name.
            shard: Part of the names for this process.
        """
        for name in shard.select(names):
            if not self.path(name).exists():
                row = measure(name)
                self.path(name).write_text(json.dumps(row))
                print(name, {key: value for key, value in row.items() if key not in LONG_ENTRIES}, flush=True)

    def read(self, names: Iterable[str]) -> dict[str, Row]:
        """Return the rows that exist, in the order of ``names``."""
        paths = {name: self.path(name) for name in names}
        return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


LONG_ENTRIES = ("findings", "variants", "key")  # entries of a row that are not printed
