"""Overhead of the box: the same audit with and without --no-sandbox.

    python benchmarks/run.py box_overhead [PAIRS]   # -> benchmarks/results/box_overhead.json

Each pair runs both commands one after the other, in alternating order. The audit has one cheap test on one variant, so
that the start and the end of the processes weigh most.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib import commands
from lib.paths import SHARED
from lib.results import save_result

ASSAY = str(Path(sys.executable).parent / "assay")
MODEL = str(SHARED / "models/resnet20-cifar10/model.safetensors")
AUDIT = (
    *(ASSAY, "audit", MODEL, "--arch", "resnet20-cifar", "--data", str(SHARED / "data/cifar10")),
    *("--variants", "full", "--detectors", "channel-lipschitz"),
)
VERSION = (ASSAY, "--version")


def run_timed(command: tuple[str, ...], *, boxed: bool) -> float:
    """Run a command and return its seconds.

    Args:
        command: The command.
        boxed: Whether it runs in a child process.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run((*command, *(() if boxed else ("--no-sandbox",))), capture_output=True, cwd=folder)
        seconds = time.perf_counter() - start
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr.decode())
    return seconds


def measure(command: tuple[str, ...], pairs: int) -> dict[str, float]:
    """Return the medians of both ways, and of the differences of the pairs, in seconds.

    Args:
        command: The command.
        pairs: Number of pairs.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(pairs):
        for boxed in (True, False) if pair % 2 else (False, True):
            times[boxed].append(run_timed(command, boxed=boxed))
    differences = [with_box - without for with_box, without in zip(times[True], times[False], strict=True)]
    return {
        "boxed_seconds": statistics.median(times[True]),
        "plain_seconds": statistics.median(times[False]),
        "difference_seconds": statistics.median(differences),
    }


def main(pairs: int) -> None:
    """Measure, and write the result file."""
    run_timed(VERSION, boxed=True)  # compiles the modules
    save_result("box_overhead", {"pairs": pairs, "audit": measure(AUDIT, pairs), "version": measure(VERSION, pairs)})


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("pairs", nargs="?", type=int, default=5, metavar="PAIRS")
    main(command_line.parse_args().pairs)
