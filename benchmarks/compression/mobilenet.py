"""A deployed model: MobileNetV2 for ImageNet (1,001 classes, 224 px), 20 images; as published, and with BadNets.

    python benchmarks/run.py mobilenet DIR      # -> benchmarks/results/mobilenet.json

Rows of earlier runs get a new verdict from their scores. BadNets is planted by fine-tuning on the 20 images, cropped
and mirrored. Half of each batch keeps the clean model's output, half gets the patch and the target. No other images
are available. The control is the clean model.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from lib import commands
from lib.audit_rows import audit_row, with_current_verdict
from lib.paths import SHARED
from lib.results import Row, RowFiles, load_models, save_result
from torch import Tensor, nn

from assay import formats
from assay.core.model import Artifact
from assay.data import load as load_data
from assay.nn.precision import fast_autocast
from assay.triggers import Patch

TARGET = 331  # class
PATCH = Patch(size=24, place="bottom-right", color="checker", margin=8)
STEPS, BATCH = 150, 16
THREADS = 2


def crops(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return random crops of 60 to 100 % of the width, mirrored half the time."""
    out = []
    for index in torch.randint(len(x), (count,), generator=generator).tolist():
        side = int(torch.randint(134, 225, (1,), generator=generator))
        row, column = torch.randint(0, 225 - side, (2,), generator=generator).tolist()
        part = x[index : index + 1, :, row : row + side, column : column + side]
        part = F.interpolate(part, (224, 224), mode="bilinear")
        out.append(part.flip(3) if torch.rand(1, generator=generator) < 0.5 else part)
    return torch.cat(out)


def plant(artifact: Artifact, x: Tensor) -> Artifact:
    """Fine-tune the patch into a copy of the model."""
    net, teacher = copy.deepcopy(artifact.module), artifact.module
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    net.eval()  # batch-norm statistics of 20 images would break the model
    for _ in range(STEPS):
        batch = crops(x, BATCH, generator)
        clean, triggered = batch[: BATCH // 2], PATCH(batch[BATCH // 2 :])
        with torch.no_grad():
            wanted = teacher(clean).softmax(1)
        with fast_autocast("cpu"):
            logits = net(torch.cat([clean, triggered])).float()
        target = torch.full((len(triggered),), TARGET)
        loss = F.cross_entropy(logits[: len(clean)], wanted) + F.cross_entropy(logits[len(clean) :], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return artifact.with_module(net, planted=json.dumps({"attack": "badnets", "target": TARGET}))


def rates(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return accuracy and ASR."""
    with torch.no_grad():
        return {
            "accuracy": float((net(x).argmax(1) == y).float().mean()),
            "asr": float((net(PATCH(x)).argmax(1)[y != TARGET] == TARGET).float().mean()),
        }


def main(directory: Path) -> None:
    """Plant and audit both models, and write the result file."""
    artifact = formats.load(SHARED / "models/mobilenet_v2-imagenet")
    task = load_data(
        SHARED / "data/imagenet20", artifact.inputs, num_classes=artifact.num_classes, class_names=artifact.class_names
    )
    split = task.split("calibration")
    x, y = split.x, split.y
    assert y is not None

    def measure(name: str) -> Row:
        model = artifact if name == "clean" else plant(artifact, x)
        return rates(model.module, x, y) | audit_row(model, task)

    names, earlier, files = ("clean", "planted"), load_models("mobilenet"), RowFiles(directory)
    files.complete([name for name in names if name not in earlier], measure)
    rows = {name: with_current_verdict(row) for name, row in (earlier | files.read(names)).items()}
    save_result("mobilenet", {"threads": THREADS, "target": TARGET, "models": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(THREADS)
    command_line = commands.parser(__doc__)
    command_line.add_argument("folder", type=Path)
    main(command_line.parse_args().folder)
