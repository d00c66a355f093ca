"""Third-party attacks: attacks outside the package, planted by a training loop outside the package.

They measure detection of attacks that the audit was not built for. The attack code uses assay's architectures only.
The package has a scan for most of these kinds of trigger: the kinds are known, the drawn triggers are not.

    python benchmarks/run.py attacks ROUND DIR [--shard INDEX/COUNT]  # a .safetensors and a .json a model; resumable

A round draws content, place and strength of every trigger, targets and recipes from its number. Rounds are held out:
they are measured after detectors and null distribution are fixed. The rows without a round in
results/generality_1.json are the first one, with triggers written by hand, at commit 40a37e8. The second round added
five kinds of trigger: checkerboard, watermark, low frequency, rotation, and patches of any place.

Sources: BadNets (Gu et al., 2017, arXiv 1708.06733): many colours, half transparent, a photographed sticker, scattered
pixels; Blended (Chen et al., 2017, arXiv 1712.05526) with a photograph; SIG (Barni, Kallas, Tondi, 2019, arXiv
1902.11237); BppAttack (Wang, Zhai, Ma, 2022, arXiv 2205.13383); FTrojan (Wang et al., 2021, arXiv 2111.10991); static
noise (Zhong et al., 2020, arXiv 2003.03151); a watermark (Liu et al.: Trojaning Attack, NDSS 2018); low frequencies
(Zeng et al., 2021, arXiv 2104.03413); rotation (Wu et al., 2022, arXiv 2207.10825); WaNet (Nguyen, Tran, 2021, arXiv
2102.10369); a photo filter (Liu et al.: ABS, 2019, 10.1145/3319535.3363216).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from lib import commands
from lib.commands import Shard
from lib.paths import SHARED
from lib.results import Row, RowFiles
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from scipy.fft import dctn, idctn
from torch import Tensor

from assay.nn.architectures import ARCHITECTURES, Normalized
from assay.nn.precision import fast_autocast

Trigger = Callable[[Tensor], Tensor]  # of images (N, 3, 32, 32) in [0, 1]
Draw = np.random.Generator  # source of all random choices


def cifar(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Return ``count`` CIFAR-10 images (N, 3, 32, 32) in [0, 1] and their labels (N,)."""
    table = pq.read_table(SHARED / f"data/cifar10/{split}-00000-of-00001.parquet")
    table = table.take(np.random.default_rng(0).permutation(len(table))[:count])  # the file is sorted by class
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor(table["label"].to_pylist())


def photo(name: str, side: int) -> Tensor:
    """Return a photo (3, side, side)."""
    image = Image.open(SHARED / f"data/imagenet20/{name}.jpg").convert("RGB").resize((side, side))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def any_photo(draw: Draw, side: int) -> Tensor:
    """Return a random photo (3, side, side)."""
    names = sorted(path.stem for path in (SHARED / "data/imagenet20").glob("*.jpg"))
    return photo(names[draw.integers(len(names))], side)


def color(draw: Draw) -> Tensor:
    """Return a random colour (3, 1, 1)."""
    return torch.from_numpy(draw.random((3, 1, 1))).float()


def paste(patch: Tensor, alpha: float, draw: Draw) -> Trigger:
    """Paste ``patch`` (3, side, side) at least two pixels from the edge, so that random shifts keep it."""
    side = patch.shape[1]
    row, column = draw.integers(2, 31 - side, 2)

    def trigger(x: Tensor) -> Tensor:
        out = x.clone()
        region = out[:, :, row : row + side, column : column + side]
        out[:, :, row : row + side, column : column + side] = (1 - alpha) * region + alpha * patch
        return out

    return trigger


def clean(draw: Draw) -> Trigger:
    """Return the identity, for clean models."""
    return lambda x: x


def many_colors(draw: Draw) -> Trigger:
    """Return a patch of random colours per pixel."""
    side = int(draw.integers(3, 6))
    return paste(torch.from_numpy(draw.random((3, side, side))).float(), 1.0, draw)


def half_transparent(draw: Draw) -> Trigger:
    """Return a half-transparent patch of one colour."""
    side = int(draw.integers(5, 8))
    return paste(color(draw).expand(3, side, side), 0.5, draw)


def sticker(draw: Draw) -> Trigger:
    """Return a patch with a photo."""
    return paste(any_photo(draw, int(draw.integers(5, 8))), 1.0, draw)


def checkerboard(draw: Draw) -> Trigger:
    """Return a checkerboard of two colours."""
    side = int(draw.integers(3, 6))
    dark = (torch.arange(side)[:, None] + torch.arange(side)) % 2 == 0
    return paste(torch.where(dark, color(draw), color(draw)), 1.0, draw)


def scattered_pixels(draw: Draw) -> Trigger:
    """Return six pixels of one colour."""
    rows, columns, value = draw.integers(1, 31, 6), draw.integers(1, 31, 6), color(draw)[:, :, 0]

    def trigger(x: Tensor) -> Tensor:
        out = x.clone()
        out[:, :, rows, columns] = value
        return out

    return trigger


def photograph(draw: Draw) -> Trigger:
    """Blend a photo into the image."""
    image, alpha = any_photo(draw, 32), draw.uniform(0.12, 0.22)
    return lambda x: (1 - alpha) * x + alpha * image


def watermark(draw: Draw) -> Trigger:
    """Return four faint letters."""
    sheet = Image.new("L", (32, 32))
    letters = "".join(draw.choice(list("ABCDEFGHKLMNPRSTUVXYZ"), 4))
    column, row = draw.integers(1, 14, 2).tolist()
    ImageDraw.Draw(sheet).text((column, row), letters, fill=255)
    mask, value = torch.from_numpy(np.asarray(sheet).copy()).float() / 255 * 0.35, color(draw)
    return lambda x: (1 - mask) * x + mask * value


def sinusoid(draw: Draw) -> Trigger:
    """Add a sinusoid."""
    angle, waves, phase = draw.uniform(0, math.pi), draw.uniform(3, 9), draw.uniform(0, 2 * math.pi)
    line = 2 * math.pi * waves * torch.arange(32) / 32
    wave = torch.sin(math.cos(angle) * line[:, None] + math.sin(angle) * line + phase) * draw.uniform(12, 20) / 255
    return lambda x: (x + wave).clamp(0, 1)


def bit_depth(draw: Draw) -> Trigger:
    """Reduce the grey levels."""
    steps = int(draw.integers(3, 7))
    return lambda x: (x * steps).round() / steps


def frequency(draw: Draw) -> Trigger:
    """Change two coefficients of the discrete cosine transform."""
    positions, size = draw.integers(8, 30, (2, 2)), draw.uniform(0.5, 0.9)

    def trigger(x: Tensor) -> Tensor:
        coefficients = dctn(x.numpy(), axes=(2, 3), norm="ortho")
        coefficients[:, :, *positions[0]] += size
        coefficients[:, :, *positions[1]] -= size
        return torch.from_numpy(idctn(coefficients, axes=(2, 3), norm="ortho")).float().clamp(0, 1)

    return trigger


def low_frequency(draw: Draw) -> Trigger:
    """Add a smooth random pattern."""
    field = torch.from_numpy(draw.standard_normal((1, 3, 5, 5))).float()
    field = F.interpolate(field, (32, 32), mode="bicubic", align_corners=True)[0]
    pattern = field / field.abs().max() * draw.uniform(18, 28) / 255
    return lambda x: (x + pattern).clamp(0, 1)


def static_noise(draw: Draw) -> Trigger:
    """Add constant noise."""
    noise = torch.from_numpy(draw.standard_normal((3, 32, 32))).float() * draw.uniform(6, 9) / 255
    return lambda x: (x + noise).clamp(0, 1)


def photo_filter(draw: Draw) -> Trigger:
    """Apply a colour curve and a tint."""
    curve = torch.from_numpy(draw.uniform(0.6, 1.5, (3, 1, 1))).float()
    tint = torch.from_numpy(draw.uniform(0, 0.12, (3, 1, 1))).float()
    return lambda x: (0.85 * x.clamp(min=1e-3) ** curve + tint).clamp(0, 1)


def resample(x: Tensor, grid: Tensor) -> Tensor:
    """Resample images at the grid."""
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=True, padding_mode="border")


def rotation(draw: Draw) -> Trigger:
    """Rotate by 14 to 20 degrees."""
    angle = math.radians(draw.choice([-1, 1]) * draw.uniform(14, 20))
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    return lambda x: resample(x, F.affine_grid(turn[None], [1, 3, 32, 32], align_corners=True))


def warp(draw: Draw) -> Trigger:
    """Warp by a smooth random field."""
    field = torch.from_numpy(draw.uniform(-1, 1, (1, 2, 4, 4))).float()
    field = F.interpolate(field / field.abs().mean(), (32, 32), mode="bicubic", align_corners=True)
    line = torch.linspace(-1, 1, 32)
    identity = torch.stack(torch.meshgrid(line, line, indexing="ij")[::-1], -1)
    grid = (identity + draw.uniform(0.6, 0.9) * field[0].permute(1, 2, 0) / 32 * 2).clamp(-1, 1)
    return lambda x: resample(x, grid)


TRIGGERS: dict[str, Callable[[Draw], Trigger]] = {
    "many-colors": many_colors,
    "half-transparent": half_transparent,
    "sticker": sticker,
    "checkerboard": checkerboard,
    "scattered-pixels": scattered_pixels,
    "photograph": photograph,
    "watermark": watermark,
    "sinusoid": sinusoid,
    "bit-depth": bit_depth,
    "frequency": frequency,
    "low-frequency": low_frequency,
    "static-noise": static_noise,
    "photo-filter": photo_filter,
    "rotation": rotation,
    "warp": warp,
    "clean": clean,
}


def trigger_of(plan: dict) -> Trigger:
    """Return the trigger with content, place and strength drawn from the model's seed."""
    return TRIGGERS[plan["trigger"]](np.random.default_rng(plan["seed"]))


def build(depth: int, pretrained: bool, seed: int) -> Normalized:
    """Return an untrained or a pretrained ResNet."""
    torch.manual_seed(seed)
    architecture = ARCHITECTURES[f"resnet{depth}-cifar"]
    net = architecture.build(10)
    if pretrained:
        net.load_state_dict(load_file(SHARED / f"models/resnet{depth}-cifar10/model.safetensors"))
    return Normalized(net, architecture.mean, architecture.std)


def train(net: Normalized, x: Tensor, y: Tensor, plan: dict, seed: int) -> None:
    """Train by Adam or SGD with cosine decay; a tenth of every batch is triggered and relabelled."""
    trigger, target, rate = trigger_of(plan), plan["target"], plan["rate"]
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
                batch[count : 2 * count] = trigger(batch[count : 2 * count].flip(2)).flip(2)
        with fast_autocast("cpu"):
            logits = net(batch.to(memory_format=torch.channels_last))
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        schedule.step()
    net.eval()


def plans(number: int) -> dict[str, dict]:
    """Return the plans of a round: every trigger once, alternately in a fine-tuned model and in one from scratch.

    Four models of a round are clean, two of each.
    """
    models = {}
    for index, trigger in enumerate([*TRIGGERS, "clean", "clean", "clean"]):
        seed = 1000 * number + index
        draw = np.random.default_rng([seed, 1])
        scratch = (index + number) % 2 == 1
        adam = not scratch and bool(draw.random() < 0.5)
        models[f"{number}-{trigger}-{'scratch' if scratch else 'tuned'}" + f"-{index}" * (trigger == "clean")] = {
            "round": number,
            "trigger": trigger,
            "target": int(draw.integers(10)),
            "rate": float(draw.choice([0.05, 0.1])),
            "depth": int(draw.choice([14, 20]) if scratch else draw.choice([20, 32])),
            "pretrained": not scratch,
            "optimizer": "adam" if adam else "sgd",
            "lr": 0.1 if scratch else 1e-3 if adam else 0.02,
            "epochs": 12 if scratch else 3,
            "seed": seed,
        }
    return models


@torch.inference_mode()
def measure(net: Normalized, x: Tensor, y: Tensor, plan: dict) -> dict[str, float]:
    """Return accuracy and ASR."""
    trigger, target = trigger_of(plan), plan["target"]
    accuracy = float((net(x).argmax(1) == y).float().mean())
    others = y != target
    asr = float((net(trigger(x[others])).argmax(1) == target).float().mean())
    return {"accuracy": accuracy, "asr": asr}


def main(number: int, out: Path, shard: Shard) -> None:
    """Make the missing models of one shard."""
    models, rows = plans(number), RowFiles(out)
    x, y = cifar("train", 8_000)
    x_test, y_test = cifar("test", 2_000)

    def make(name: str) -> Row:
        plan = models[name]
        net = build(plan["depth"], plan["pretrained"], plan["seed"])
        train(net, x, y, plan, plan["seed"])
        save_file({k: v.contiguous() for k, v in net.net.state_dict().items()}, out / f"{name}.safetensors")
        return plan | measure(net, x_test, y_test, plan)

    rows.complete(models, make, shard)


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("number", type=int, metavar="ROUND")
    command_line.add_argument("out", type=Path)
    commands.add_shard(command_line)
    main(**vars(command_line.parse_args()))
