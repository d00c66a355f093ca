"""Cost of low-bit randomization for a photo model: MobileNetV2-ImageNet at 96 pixels, on images with real labels.

Twenty ImageNet images are available. Accuracy is therefore counted over fifty random crops of each, before and after,
with three draws of the lowest bits. The interval is of the paired difference (bootstrap over the twenty images).

    python benchmarks/run.py low_bits   # -> benchmarks/results/low_bits.json
"""

from __future__ import annotations

import numpy as np
import torch
from lib import commands
from lib.paths import SHARED
from lib.photo_crops import photo_crops
from lib.results import save_result
from torch import Tensor

from assay import formats
from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.mitigations import LowBitRandomization
from assay.nn.inference import predict

SIZE = 96  # pixels of a crop
SHORT_SIDE = 104  # pixels of a resized image
CROPS = 50  # per image
SEEDS = (0, 1, 2)  # of the random bits
RESAMPLES = 2_000  # of the bootstrap


def labelled_crops() -> tuple[Tensor, Tensor, Tensor]:
    """Return images (N, 3, 96, 96), their classes in the model's numbering, and the number of their source image."""
    crops = photo_crops(SIZE, SHORT_SIDE, CROPS)
    x = torch.from_numpy(np.stack([np.asarray(crop, np.float32).transpose(2, 0, 1) / 255 for _, crop in crops]))
    y = torch.tensor([1 + int(name.split("_")[2]) for name, _ in crops])  # the model's first class is "background"
    return x, y, torch.arange(len(crops)) // CROPS


def main() -> None:
    """Measure, and write the result file."""
    artifact = formats.load(SHARED / "models/mobilenet_v2-imagenet", shape=(3, SIZE, SIZE))
    x, y, origin = labelled_crops()
    names = artifact.class_names or tuple(map(str, range(artifact.num_classes or 0)))
    build = Build(artifact, Task("imagenet20", {"test": Split(x, y)}, names))
    correct = predict(artifact.module, x) == y
    after = torch.stack(
        [predict(LowBitRandomization()(build, seed=seed).artifact.module, x) == y for seed in SEEDS]
    ).double()
    loss = correct.double() - after.mean(0)
    by_image = torch.stack([loss[origin == number].mean() for number in origin.unique()]).numpy()
    random = np.random.default_rng(1)
    means = [random.choice(by_image, len(by_image)).mean() for _ in range(RESAMPLES)]
    save_result(
        "low_bits",
        {
            "crops": len(x),
            "clean_accuracy": float(correct.double().mean()),
            "clean_accuracy_after": [float(one.mean()) for one in after],
            "loss_in_points": round(100 * float(loss.mean()), 3),
            "loss_interval": [round(100 * float(np.quantile(means, q)), 3) for q in (0.025, 0.975)],
        },
    )


def cli() -> None:
    """Run the command line."""
    commands.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    main()
