"""Agreement of the fake-quantized int8 module with ONNX Runtime's static QDQ file, on CIFAR-10 test images.

python benchmarks/run.py int8_agreement     # -> benchmarks/results/int8_agreement.json
"""

from __future__ import annotations

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
from lib import commands
from lib.paths import RESULTS, SHARED
from PIL import Image
from torch import Tensor, nn

from assay._version import __version__
from assay.formats import load
from assay.graphs.export import to_onnx_int8
from assay.stages.quantize import simulate_int8

DEPTHS = (20, 32, 44, 56)
CALIBRATION = 512  # images


def cifar10(shared: Path, split: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the first ``count`` images (N, 3, 32, 32) in [0, 1] and their labels (N,)."""
    table = pq.read_table(shared / "data" / "cifar10" / f"{split}-00000-of-00001.parquet").slice(0, count)
    images = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in table["img"].to_pylist()]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255).contiguous()
    return x, torch.tensor(table["label"].to_pylist())


def classes(model: nn.Module, x: Tensor) -> Tensor:
    """Return the predicted classes (N,)."""
    with torch.no_grad():
        return torch.cat([model(batch).argmax(1) for batch in x.split(250)])


def measure(shared: Path, depth: int, clean: Tensor, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """Return one row for quantization per tensor and one per channel."""
    path = shared / "models" / f"resnet{depth}-cifar10" / "model.safetensors"
    full = load(path, arch=f"resnet{depth}-cifar")
    by_full = classes(full.module, x)
    rows = []
    for per_channel in (False, True):
        start = time.perf_counter()
        fake_quantized = simulate_int8(full.module, clean, per_channel=per_channel)
        seconds = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "model.onnx"
            to_onnx_int8(full, clean, file, per_channel=per_channel)
            by_file = classes(load(file).module, x)
        by_fake_quantized = classes(fake_quantized, x)
        rows.append(
            {
                "model": f"resnet{depth}-cifar10",
                "weights": "per channel" if per_channel else "per tensor",
                "agreement_twin_file": fraction(by_fake_quantized == by_file),
                "agreement_full_file": fraction(by_full == by_file),
                "accuracy_full": fraction(by_full == y),
                "accuracy_twin": fraction(by_fake_quantized == y),
                "accuracy_file": fraction(by_file == y),
                "seconds_to_make_twin": round(seconds, 2),
            }
        )
        print(rows[-1], flush=True)
    return rows


def fraction(mask: Tensor) -> float:
    """Return the fraction of True values."""
    return float(mask.double().mean())


def main() -> None:
    """Measure all depths, and write the result file."""
    commands.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    clean, _ = cifar10(SHARED, "train", CALIBRATION)
    x, y = cifar10(SHARED, "test", 5000)
    rows = [row for depth in DEPTHS for row in measure(SHARED, depth, clean, x, y)]
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
    (RESULTS / "int8_agreement.json").write_text(json.dumps(result, indent=1) + "\n")


def cli() -> None:
    """Run the command line."""
    main()
