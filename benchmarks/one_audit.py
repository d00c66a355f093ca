"""One audit as a user would run it: the third-party ResNet-20, four variants, the command line; and ``assay --help``.

python benchmarks/one_audit.py      # -> benchmarks/results/one_audit.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import SHARED, save

ASSAY = str(Path(sys.executable).parent / "assay")


def timed(*command: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    return time.perf_counter() - start, done


def main() -> None:
    help_seconds = min(timed(ASSAY, "--help")[0] for _ in range(5))
    model, data = SHARED / "models/resnet20-cifar10/model.safetensors", SHARED / "data/cifar10"
    with tempfile.TemporaryDirectory() as out:
        command = [
            ASSAY,
            "audit",
            str(model),
            "--arch",
            "resnet20-cifar",
            "--data",
            str(data),
            "--out",
            out,
            "--json",
            "-",
        ]
        seconds, done = timed(*command)
    answer = json.loads(done.stdout)
    save(
        "one_audit",
        {
            "audit_seconds": seconds,
            "help_seconds": help_seconds,
            "exit_code": done.returncode,
            "verdict": answer["verdict"],
            "p_value": answer["p_value"],
            "variants": {variant["name"]: variant["accuracy"] for variant in answer["variants"]},
            "seconds_by_test": {f"{f['variant']}/{f['detector']}": f["seconds"] for f in answer["findings"]},
        },
    )


if __name__ == "__main__":
    main()
