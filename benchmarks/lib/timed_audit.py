"""One ``assay audit`` as a process of one thread in float32: CPU seconds and memory."""

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
RESNET20 = (str(MODEL), "--arch", ARCH, "--data", str(DATA))  # third-party weights
COMMAND = (str(Path(sys.executable).parent / "assay"), "audit")


@dataclass(frozen=True)
class TimedAudit:
    """Cost and result of one audit."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: float  # of the largest child process of this program so far
    exit_code: int
    document: dict[str, Any]  # JSON of the audit

    def figures(self) -> dict[str, Any]:
        """Return the figures for a result file."""
        findings = self.document["findings"]
        return {
            "cpu_seconds": self.cpu_seconds,
            "wall_seconds": self.wall_seconds,
            "peak_mib": self.peak_mib,
            "verdict": self.document["verdict"],
            "p_value": self.document["p_value"],
            "samples": self.document["data"]["samples"],
            "by_test": {f"{f['variant']}/{f['detector']}": round(f["seconds"], 2) for f in findings},
        }


def timed_audit(*options: str, model: tuple[str, ...] = RESNET20) -> TimedAudit:
    """Run the audit.

    Args:
        options: Further options.
        model: Model and data, with their options.
    """
    with tempfile.TemporaryDirectory() as out:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [*COMMAND, *model, *options, "--out", f"{out}/report", "--json", f"{out}/audit.json"],
            capture_output=True,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        document = json.loads(Path(out, "audit.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return TimedAudit(cpu, seconds, after.ru_maxrss / 1024, done.returncode, document)
