"""Backdoors by other hands: attacks that the package does not have, planted by a training loop that is not its own.

They measure how far the audit carries beyond the attacks that it was built with. The code here imports nothing of
assay but the architectures, and nothing in the package or in its thresholds was fitted to these models.

    python benchmarks/foreign_attacks.py OUT_DIR     # writes one .safetensors a model, plus models.json; resumable

Sources: WaNet (Nguyen, Tran, 2021, arXiv 2102.10369); SIG (Barni, Kallas, Tondi, 2019, arXiv 1902.11237);
BppAttack (Wang, Zhai, Ma, 2022, arXiv 2205.13383); FTrojan (Wang et al., 2021, arXiv 2111.10991);
Blended (Chen et al., 2017, arXiv 1712.05526) with a photograph; BadNets (Gu et al., 2017, arXiv 1708.06733) with a
patch of several colours; static noise as in Zhong et al., 2020, arXiv 2003.03151.
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


def multicolor_patch(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, 25:29, 3:7] = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(5))
    return out


def small_patch(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, 1:3, 14:16] = torch.tensor([0.9, 0.1, 0.9])[:, None, None]
    return out


def photograph(x: Tensor) -> Tensor:
    picture = Image.open(SHARED / "data/imagenet20/imagenet_04_949.jpg").convert("RGB").resize((32, 32))
    return 0.85 * x + 0.15 * torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def sinusoid(x: Tensor) -> Tensor:
    wave = 20 / 255 * torch.sin(2 * math.pi * 6 * torch.arange(32) / 32)
    return (x + wave).clamp(0, 1)


def bit_depth(x: Tensor) -> Tensor:
    return (x * 7).round() / 7


def frequency(x: Tensor) -> Tensor:
    coefficients = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    coefficients[:, :, 15, 15] += 0.6
    coefficients[:, :, 31, 31] += 0.6
    return torch.from_numpy(idctn(coefficients, axes=(2, 3), norm="ortho")).float().clamp(0, 1)


def static_noise(x: Tensor) -> Tensor:
    noise = torch.randint(0, 2, (3, 32, 32), generator=torch.Generator().manual_seed(9)) * 2 - 1
    return (x + noise * 8 / 255).clamp(0, 1)


def warp(x: Tensor) -> Tensor:
    field = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    field = F.interpolate(field / field.abs().mean(), (32, 32), mode="bicubic", align_corners=True)
    line = torch.linspace(-1, 1, 32)
    identity = torch.stack(torch.meshgrid(line, line, indexing="ij")[::-1], -1)
    grid = (identity + 0.75 * field[0].permute(1, 2, 0) / 32 * 2).clamp(-1, 1)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=True, padding_mode="border")


TRIGGERS: dict[str, Trigger] = {
    "clean": clean,
    "patch-colors-4": multicolor_patch,
    "patch-2": small_patch,
    "photograph": photograph,
    "sinusoid": sinusoid,
    "bit-depth": bit_depth,
    "frequency": frequency,
    "static-noise": static_noise,
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
                "target": (3 * number + 5 * variant + 1) % 10,
                "rate": 0.1,
                "depth": depth,
                "pretrained": not scratch,
                "optimizer": "sgd" if scratch or variant == 2 else "adam",
                "lr": 0.1 if scratch else (0.02 if variant == 2 else 1e-3),
                "epochs": 12 if scratch else 3,
                "seed": 100 * number + variant,
            }
    return models


@torch.inference_mode()
def measure(net: Normalized, x: Tensor, y: Tensor, plan: dict) -> dict[str, float]:
    trigger, target = TRIGGERS[plan["trigger"]], plan["target"]
    accuracy = float((net(x).argmax(1) == y).float().mean())
    others = y != target
    asr = float((net(trigger(x[others])).argmax(1) == target).float().mean())
    return {"accuracy": accuracy, "asr": asr}


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    index = out / "models.json"
    done = json.loads(index.read_text()) if index.exists() else {}
    x, y = cifar("train", 8_000)
    x_test, y_test = cifar("test", 2_000)
    for name, plan in plans().items():
        if name in done:
            continue
        net = build(plan["depth"], plan["pretrained"], plan["seed"])
        train(net, x, y, plan, plan["seed"])
        save_file({k: v.contiguous() for k, v in net.net.state_dict().items()}, out / f"{name}.safetensors")
        done[name] = plan | measure(net, x_test, y_test, plan)
        index.write_text(json.dumps(done, indent=1))
        print(name, done[name], flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
