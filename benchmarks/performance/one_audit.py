"""Time of one audit of the third-party ResNet-20 on the command line, of ``assay demo`` and of ``assay --help``.

    python benchmarks/run.py one_audit                     # -> benchmarks/results/one_audit.json
    python benchmarks/run.py one_audit --demo bfloat16     # only the demo in one format; the other figures stay

The audit runs all default variants and tests. Audit and demo run in bfloat16 and in float32, as on other processors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib import commands
from lib.paths import SHARED
from lib.results import load_result, save_result

ASSAY = str(Path(sys.executable).parent / "assay")
MODEL = ("--arch", "resnet20-cifar", "--data", str(SHARED / "data/cifar10"))


def run_timed(*command: str, precision: str = "bfloat16") -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run a command in a number format and return its seconds."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"ASSAY_PRECISION": precision})
    return time.perf_counter() - start, done


def time_demo(precision: str) -> float:
    """Run the demo and return its seconds."""
    with tempfile.TemporaryDirectory() as out:
        seconds, done = run_timed(ASSAY, "demo", "--out", f"{out}/demo", precision=precision)
    done.check_returncode()
    return seconds


def time_audit(precision: str) -> dict[str, Any]:
    """Run the audit and return its times and verdict."""
    path = SHARED / "models/resnet20-cifar10/model.safetensors"
    with tempfile.TemporaryDirectory() as out:
        seconds, done = run_timed(ASSAY, "audit", str(path), *MODEL, "--out", out, "--json", "-", precision=precision)
    document = json.loads(done.stdout)
    return {
        "audit_seconds": seconds,
        "exit_code": done.returncode,
        "verdict": document["verdict"],
        "p_value": document["p_value"],
        "variants": {variant["name"]: variant["accuracy"] for variant in document["variants"]},
        "seconds_by_test": {f"{f['variant']}/{f['detector']}": f["seconds"] for f in document["findings"]},
    }


def main() -> None:
    """Measure, and write the result file."""
    help_seconds = min(run_timed(ASSAY, "--help")[0] for _ in range(5))
    demos = {precision: time_demo(precision) for precision in ("bfloat16", "float32")}
    audits = {precision: time_audit(precision) for precision in ("bfloat16", "float32")}
    result = {**audits["bfloat16"], "float32": audits["float32"], "demo_seconds": demos, "help_seconds": help_seconds}
    save_result("one_audit", result)


def update_demo(precision: str) -> None:
    """Measure the demo in one number format, and keep the other figures of the result file."""
    result = load_result("one_audit")
    result["demo_seconds"][precision] = time_demo(precision)
    save_result("one_audit", result)


def cli() -> None:
    """Run the command line."""
    command_line = commands.parser(__doc__)
    command_line.add_argument("--demo", choices=("bfloat16", "float32"))
    demo = command_line.parse_args().demo
    main() if demo is None else update_demo(demo)
