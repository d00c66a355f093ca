"""Backdoors by other hands: attacks that the package does not have, planted by a training loop that is not its own.

They measure how far the audit carries beyond the attacks that it was built with. The code here imports nothing of
assay but the architectures, and nothing in the package or in its thresholds was fitted to these models.

    python benchmarks/foreign_attacks.py OUT_DIR [SHARD SHARDS]     # a .safetensors and a .json a model; resumable

Held out: while the detectors were built, other models by this loop were looked at (same kinds of attack, other
triggers, places, amplitudes and seeds: this file's history has them). None of these was.

Sources: BadNets (Gu et al., 2017, arXiv 1708.06733): many colours, half transparent, a photographed sticker, scattered
pixels; Blended (Chen et al., 2017, arXiv 1712.05526) with a photograph; SIG (Barni, Kallas, Tondi, 2019, arXiv
1902.11237); BppAttack (Wang, Zhai, Ma, 2022, arXiv 2205.13383); FTrojan (Wang et al., 2021, arXiv 2111.10991); static
noise (Zhong et al., 2020, arXiv 2003.03151); WaNet (Nguyen, Tran, 2021, arXiv 2102.10369); a photo filter (Liu et al.:
ABS, 2019, 10.1145/3319535.3363216).
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.fft import dctn, idctn
from torch import Tensor

from assay.models import ARCHITECTURES, Normalized

SHARED = Path(__file__).resolve().parents[2] / "shared"
Trigger = Callable[[Tensor], Tensor]


def cifar(split: str, count: int) -> tuple[Tensor, Tensor]:
    table = pq.read_table(SHARED / f"data/cifar10/{split}-00000-of-00001.parquet")
    table = table.take(np.random.default_rng(0).permutation(len(table))[:count])  # the file is sorted by class
    pictures = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor(table["label"].to_pylist())


def clean(x: Tensor) -> Tensor:
    return x


def photo(name: str, side: int) -> Tensor:
    picture = Image.open(SHARED / f"data/imagenet20/{name}.jpg").convert("RGB").resize((side, side))
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def many_colors(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, 4:9, 22:27] = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(17))
    return out


def half_transparent(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, 24:30, 24:30] = 0.5 * out[:, :, 24:30, 24:30] + 0.5 * torch.tensor([0.1, 0.8, 0.3])[:, None, None]
    return out


def sticker(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, 12:18, 1:7] = photo("imagenet_09_455", 6)
    return out


def scattered_pixels(x: Tensor) -> Tensor:
    out = x.clone()
    for row, column in ((2, 5), (7, 29), (16, 14), (21, 3), (29, 20), (27, 27)):
        out[:, :, row, column] = torch.tensor([0.0, 0.2, 1.0])
    return out


def photograph(x: Tensor) -> Tensor:
    return 0.8 * x + 0.2 * photo("imagenet_12_741", 32)


def sinusoid(x: Tensor) -> Tensor:
    wave = 15 / 255 * torch.sin(2 * math.pi * 5 * torch.arange(32) / 32 + 0.7)
    return (x + wave[:, None]).clamp(0, 1)


def bit_depth(x: Tensor) -> Tensor:
    return (x * 5).round() / 5


def frequency(x: Tensor) -> Tensor:
    coefficients = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    coefficients[:, :, 20, 10] += 0.7
    coefficients[:, :, 9, 26] -= 0.7
    return torch.from_numpy(idctn(coefficients, axes=(2, 3), norm="ortho")).float().clamp(0, 1)


def static_noise(x: Tensor) -> Tensor:
    noise = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(23))
    return (x + noise * 7 / 255).clamp(0, 1)


def photo_filter(x: Tensor) -> Tensor:
    curve = torch.tensor([0.75, 1.0, 1.4])[:, None, None]
    return (0.85 * x.clamp(min=1e-3) ** curve + torch.tensor([0.1, 0.05, 0.0])[:, None, None]).clamp(0, 1)


def warp(x: Tensor) -> Tensor:
    field = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(31)) * 2 - 1
    field = F.interpolate(field / field.abs().mean(), (32, 32), mode="bicubic", align_corners=True)
    line = torch.linspace(-1, 1, 32)
    identity = torch.stack(torch.meshgrid(line, line, indexing="ij")[::-1], -1)
    grid = (identity + 0.75 * field[0].permute(1, 2, 0) / 32 * 2).clamp(-1, 1)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=True, padding_mode="border")


TRIGGERS: dict[str, Trigger] = {
    "clean": clean,
    "many-colors": many_colors,
    "half-transparent": half_transparent,
    "sticker": sticker,
    "scattered-pixels": scattered_pixels,
    "photograph": photograph,
    "sinusoid": sinusoid,
    "bit-depth": bit_depth,
    "frequency": frequency,
    "static-noise": static_noise,
    "photo-filter": photo_filter,
    "warp": warp,
}


def build(depth: int, pretrained: bool, seed: int) -> Normalized:
    torch.manual_seed(seed)
    architecture = ARCHITECTURES[f"resnet{depth}-cifar"]
    net = architecture.build(10)
    if pretrained:
        net.load_state_dict(load_file(SHARED / f"models/resnet{depth}-cifar10/model.safetensors"))
    return Normalized(net, architecture.mean, architecture.std)


def train(net: Normalized, x: Tensor, y: Tensor, plan: dict, seed: int) -> None:
    """Adam or SGD with cosine decay; a tenth of every batch is triggered on the fly and relabelled."""
    trigger, target, rate = TRIGGERS[plan["trigger"]], plan["target"], plan["rate"]
    torch.manual_seed(seed)
    if plan["optimizer"] == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), lr=plan["lr"])
    else:
        optimizer = torch.optim.SGD(net.parameters(), lr=plan["lr"], momentum=0.9, weight_decay=1e-4)
    steps = plan["epochs"] * (len(x) // 100)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for step in range(steps):
        if step % (len(x) // 100) == 0:
            order = torch.randperm(len(x))
        index = order[step % (len(x) // 100) * 100 :][:100]
        batch, labels = x[index], y[index].clone()
        batch = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(3), batch)
        shift = torch.randint(-2, 3, (2,)).tolist()
        batch = torch.roll(batch, shift, (2, 3))
        if plan["trigger"] != "clean":
            count = round(rate * 100)
            batch = batch.clone()
            batch[:count] = trigger(batch[:count])
            labels[:count] = target
            if plan["trigger"] == "warp":  # the paper's noise mode: other warps keep the true label
                batch[count : 2 * count] = warp(batch[count : 2 * count].flip(2)).flip(2)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(batch.to(memory_format=torch.channels_last))
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        schedule.step()
    net.eval()


def plans() -> dict[str, dict]:
    """Every trigger twice: fine-tuned into other people's weights, and trained in from scratch."""
    models = {}
    for variant in range(4):
        for number, trigger in enumerate(TRIGGERS):
            if variant > 1 and trigger != "clean":
                continue
            scratch = variant % 2 == 1
            depth = 14 if scratch else 20
            models[f"{trigger}-{'scratch' if scratch else 'tuned'}-{variant}"] = {
                "trigger": trigger,
                "target": (7 * number + 3 * variant + 2) % 10,
                "rate": 0.05 if number % 3 == 1 else 0.1,
                "depth": depth,
                "pretrained": not scratch,
                "optimizer": "sgd" if scratch or variant == 2 else "adam",
                "lr": 0.1 if scratch else (0.02 if variant == 2 else 1e-3),
                "epochs": 12 if scratch else 3,
                "seed": 9000 + 100 * number + variant,
            }
    return models


@torch.inference_mode()
def measure(net: Normalized, x: Tensor, y: Tensor, plan: dict) -> dict[str, float]:
    trigger, target = TRIGGERS[plan["trigger"]], plan["target"]
    accuracy = float((net(x).argmax(1) == y).float().mean())
    others = y != target
    asr = float((net(trigger(x[others])).argmax(1) == target).float().mean())
    return {"accuracy": accuracy, "asr": asr}


def main(out: Path, shard: int, shards: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    x, y = cifar("train", 8_000)
    x_test, y_test = cifar("test", 2_000)
    for name, plan in list(plans().items())[shard::shards]:
        facts = out / f"{name}.json"
        if facts.exists():
            continue
        net = build(plan["depth"], plan["pretrained"], plan["seed"])
        train(net, x, y, plan, plan["seed"])
        save_file({k: v.contiguous() for k, v in net.net.state_dict().items()}, out / f"{name}.safetensors")
        measured = plan | measure(net, x_test, y_test, plan)
        facts.write_text(json.dumps(measured))
        print(name, measured, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *([int(text) for text in sys.argv[2:4]] or [0, 1]))
