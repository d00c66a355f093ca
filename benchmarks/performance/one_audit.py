"""One audit as a user would run it: the third-party ResNet-20, the command line; and ``assay --help``.

    python benchmarks/run.py one_audit      # -> benchmarks/results/one_audit.json

With all forms and tests of an audit by default, those included that look for sleeping backdoors.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib.paths import SHARED
from lib.results import save_result

ASSAY = str(Path(sys.executable).parent / "assay")
MODEL = ("--arch", "resnet20-cifar", "--data", str(SHARED / "data/cifar10"))


def timed(*command: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    return time.perf_counter() - start, done


def audited() -> dict[str, Any]:
    path = SHARED / "models/resnet20-cifar10/model.safetensors"
    with tempfile.TemporaryDirectory() as out:
        seconds, done = timed(ASSAY, "audit", str(path), *MODEL, "--out", out, "--json", "-")
    answer = json.loads(done.stdout)
    return {
        "audit_seconds": seconds,
        "exit_code": done.returncode,
        "verdict": answer["verdict"],
        "p_value": answer["p_value"],
        "variants": {variant["name"]: variant["accuracy"] for variant in answer["variants"]},
        "seconds_by_test": {f"{f['variant']}/{f['detector']}": f["seconds"] for f in answer["findings"]},
    }


def main() -> None:
    help_seconds = min(timed(ASSAY, "--help")[0] for _ in range(5))
    save_result("one_audit", {**audited(), "help_seconds": help_seconds})


if __name__ == "__main__":
    main()
