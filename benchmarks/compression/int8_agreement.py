"""How well the int8 twin in torch agrees with ONNX Runtime's static QDQ file, on CIFAR-10's test pictures.

Usage: python benchmarks/run.py int8_agreement [--shared ../shared] [--out benchmarks/results/int8_agreement.json]
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from assay._version import __version__
from assay.formats import load
from assay.graphs.export import to_onnx_int8
from assay.stages.quantize import simulate_int8

DEPTHS = (20, 32, 44, 56)
CALIBRATION = 512


def cifar10(shared: Path, split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` pictures (N, 3, 32, 32) in [0, 1] and their labels (N,)."""
    table = pq.read_table(shared / "data" / "cifar10" / f"{split}-00000-of-00001.parquet").slice(0, count)
    pictures = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in table["img"].to_pylist()]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(255).contiguous()
    return x, torch.tensor(table["label"].to_pylist())


def classes(net: nn.Module, x: Tensor) -> Tensor:
    """The class (N,) that the net names for each picture."""
    with torch.no_grad():
        return torch.cat([net(batch).argmax(1) for batch in x.split(250)])


def measure(shared: Path, depth: int, clean: Tensor, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """One row per tensor, one per channel."""
    path = shared / "models" / f"resnet{depth}-cifar10" / "model.safetensors"
    full = load(path, arch=f"resnet{depth}-cifar")
    by_full = classes(full.module, x)
    rows = []
    for per_channel in (False, True):
        start = time.perf_counter()
        twin = simulate_int8(full.module, clean, per_channel=per_channel)
        seconds = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "model.onnx"
            to_onnx_int8(full, clean, file, per_channel=per_channel)
            by_file = classes(load(file).module, x)
        by_twin = classes(twin, x)
        rows.append(
            {
                "model": f"resnet{depth}-cifar10",
                "weights": "per channel" if per_channel else "per tensor",
                "agreement_twin_file": share(by_twin == by_file),
                "agreement_full_file": share(by_full == by_file),
                "accuracy_full": share(by_full == y),
                "accuracy_twin": share(by_twin == y),
                "accuracy_file": share(by_file == y),
                "seconds_to_make_twin": round(seconds, 2),
            }
        )
        print(rows[-1], flush=True)
    return rows


def share(mask: Tensor) -> float:
    return float(mask.double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/int8_agreement.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clean, _ = cifar10(arguments.shared, "train", CALIBRATION)
    x, y = cifar10(arguments.shared, "test", 5000)
    rows = [row for depth in DEPTHS for row in measure(arguments.shared, depth, clean, x, y)]
    result = {
        "benchmark": "int8_agreement",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {
            "assay": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "data": {"name": "cifar10", "test": len(x), "calibration": CALIBRATION},
        "lowest_agreement_twin_file": min(row["agreement_twin_file"] for row in rows),
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
