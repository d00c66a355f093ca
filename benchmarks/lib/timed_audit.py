"""One ``assay audit`` of the third-party ResNet-20 as a process of one thread in float32: CPU seconds and memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.paths import SHARED

MODEL = SHARED / "models/resnet20-cifar10/model.safetensors"
ARCH = "resnet20-cifar"
DATA = SHARED / "data/cifar10"
ENVIRONMENT = {"ASSAY_PRECISION": "float32", "OMP_NUM_THREADS": "1"}
COMMAND = (str(Path(sys.executable).parent / "assay"), "audit", str(MODEL), "--arch", ARCH, "--data", str(DATA))


@dataclass(frozen=True)
class TimedAudit:
    """Cost and result of one audit."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: float  # of the largest child process of this program so far
    exit_code: int
    document: dict[str, Any]  # JSON of the audit


def timed_audit(*options: str) -> TimedAudit:
    """Run the audit with more ``options``."""
    with tempfile.TemporaryDirectory() as out:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [*COMMAND, *options, "--out", f"{out}/report", "--json", f"{out}/audit.json"],
            capture_output=True,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        document = json.loads(Path(out, "audit.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return TimedAudit(cpu, seconds, after.ru_maxrss / 1024, done.returncode, document)
