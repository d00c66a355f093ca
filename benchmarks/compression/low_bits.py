"""What low-bit randomization costs a model of photos: MobileNetV2-ImageNet at 96 pixels, on pictures with real labels.

Twenty pictures of ImageNet are at hand, so accuracy is counted over fifty random crops of each, before and after, with
three draws of the lowest bits. Pairs, so the interval is of the difference (bootstrap over the twenty pictures).

    python benchmarks/run.py low_bits   # -> benchmarks/results/low_bits.json
"""

from __future__ import annotations

import numpy as np
import torch
from lib.paths import SHARED
from lib.results import save_result
from PIL import Image
from torch import Tensor

from assay import formats
from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.mitigations import LowBitRandomization
from assay.nn.inference import predict

SIZE, SMALLEST, CROPS, SEEDS = 96, 104, 50, (0, 1, 2)
DRAWN = 2_000


def crops() -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (N, 3, 96, 96), their classes as the model numbers them, and which picture each is from."""
    random, pictures, labels, origins = np.random.default_rng(0), [], [], []
    for number, path in enumerate(sorted((SHARED / "data/imagenet20").glob("*.jpg"))):
        photo = Image.open(path).convert("RGB")
        ratio = SMALLEST / min(photo.size)
        photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.BICUBIC)
        values = np.asarray(photo, np.float32) / 255
        for _ in range(CROPS):
            top, left = (random.integers(0, side - SIZE + 1) for side in values.shape[:2])
            pictures.append(values[top : top + SIZE, left : left + SIZE].transpose(2, 0, 1).copy())
            labels.append(1 + int(path.stem.split("_")[2]))  # the model's first class is "background"
            origins.append(number)
    return torch.from_numpy(np.stack(pictures)), torch.tensor(labels), torch.tensor(origins)


def main() -> None:
    artifact = formats.load(SHARED / "models/mobilenet_v2-imagenet", shape=(3, SIZE, SIZE))
    x, y, origin = crops()
    names = artifact.class_names or tuple(map(str, range(artifact.num_classes or 0)))
    build = Build(artifact, Task("imagenet20", {"test": Split(x, y)}, names))
    right = predict(artifact.module, x) == y
    after = torch.stack(
        [predict(LowBitRandomization()(build, seed=seed).artifact.module, x) == y for seed in SEEDS]
    ).double()
    loss = right.double() - after.mean(0)
    by_picture = torch.stack([loss[origin == number].mean() for number in origin.unique()]).numpy()
    random = np.random.default_rng(1)
    drawn = [random.choice(by_picture, len(by_picture)).mean() for _ in range(DRAWN)]
    save_result(
        "low_bits",
        {
            "crops": len(x),
            "clean_accuracy": float(right.double().mean()),
            "clean_accuracy_after": [float(one.mean()) for one in after],
            "loss_in_points": round(100 * float(loss.mean()), 3),
            "loss_interval": [round(100 * float(np.quantile(drawn, q)), 3) for q in (0.025, 0.975)],
        },
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
