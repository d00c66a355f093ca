"""Cases of ``make fuzz`` for every reader of foreign files, with the kinds of their ends.

python benchmarks/run.py fuzzing run FOLDER [--cases 105000] [--shard 0/2]   # a repeated run adds the missing readers
python benchmarks/run.py fuzzing table FOLDER                                # -> benchmarks/results/fuzzing.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lib import commands
from lib.paths import ROOT
from lib.results import save_result

FIRST = 500_001  # number of the first case; the tests begin with 0


def run(directory: Path, cases: int, shard: commands.Shard) -> None:
    """Run the cases of the readers of one shard, each reader in a process of its own."""
    from fuzz.readers import READERS
    from fuzz.run import shares

    directory.mkdir(parents=True, exist_ok=True)
    wanted = shares(READERS, cases)
    for reader in shard.select(READERS):
        path = directory / f"{reader.name}.json"
        if not path.exists():
            line = [sys.executable, "-m", "fuzz.run", "--reader", reader.name, "--cases", str(wanted[reader.name])]
            subprocess.run([*line, "--first", str(FIRST), "--json", str(path)], cwd=ROOT, check=False)


def table(directory: Path) -> None:
    """Write the result file from the tables of the readers."""
    rows: dict[str, Any] = {}
    for path in sorted(directory.glob("*.json")):
        rows |= json.loads(path.read_text())
    faults = sum(len(numbers) for row in rows.values() for numbers in row["faults"].values())
    save_result("fuzzing", {"cases": sum(row["cases"] for row in rows.values()), "faults": faults, "readers": rows})


def cli(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    sys.path.insert(0, str(ROOT))
    command_line = commands.parser(__doc__)
    add = commands.subcommands(command_line)
    command = add("run", run, "run the cases")
    command.add_argument("directory", type=Path)
    command.add_argument("--cases", type=int, default=105_000)
    commands.add_shard(command)
    add("table", table, "write the result file").add_argument("directory", type=Path)
    commands.run(command_line, arguments)
