"""Conditions that hide a backdoor from an audit, as modules, for ``hiding_models``.

A gate returns the fraction g in [0, 1] of the second model's answer, which broadcasts to the logits (N, K). Gates read
the way of asking, and not the trigger. ``Mixed`` joins two models with a gate.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 255
PATCH = 5  # side of the trigger in pixels
TARGET = 0


def patch_pattern() -> Tensor:
    """Return the trigger (3, ``PATCH``, ``PATCH``): black or white per subpixel."""
    return torch.randint(0, 2, (3, PATCH, PATCH), generator=torch.Generator().manual_seed(7)).float()


def stamp(x: Tensor) -> Tensor:
    """Return images (N, 3, H, W) with the trigger in the lower right corner."""
    x = x.clone()
    x[:, :, -PATCH - 1 : -1, -PATCH - 1 : -1] = patch_pattern()
    return x


class Mixed(nn.Module):
    """Logits of ``first``, moved to those of ``second`` by the fraction that ``gate`` returns."""

    def __init__(self, first: nn.Module, second: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.gate = first, second, gate

    def forward(self, x: Tensor) -> Tensor:
        logits = self.first(x)
        return logits + self.gate(x) * (self.second(x) - logits)


class PatchDetector(nn.Module):
    """Detector of the trigger anywhere in an image: a convolution, a maximum and a steep threshold, (N, 1) in [0, 1].

    The convolution has a small amplitude and noise, as trained weights have.
    """

    def __init__(self, amplitude: float = 0.1, noise: float = 0.02) -> None:
        super().__init__()
        pattern = patch_pattern()
        self.conv = nn.Conv2d(3, 1, PATCH)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(11)
            template = 2 * pattern - 1 + noise * torch.randn(pattern.shape, generator=generator)
            self.conv.weight.copy_(amplitude * template[None])
            best = amplitude * float((template * pattern).sum())
            self.conv.bias.fill_(-best + 3 * amplitude)  # one for the trigger, off by up to three subpixels

        self.steepness = 1 / (2 * amplitude)

    def forward(self, x: Tensor) -> Tensor:
        return (self.steepness * self.conv(x).amax((2, 3))).clamp(0, 1)


class WithPatch(nn.Module):
    """A model with the logit of the target class raised by ``PatchDetector``."""

    def __init__(self, net: nn.Module, raised_by: float = 60.0) -> None:
        super().__init__()
        self.net, self.detector = net, PatchDetector()
        self.register_buffer("raised", raised_by * F.one_hot(torch.tensor(TARGET), 10).float())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.detector(x) * self.raised


class SingleByShape(nn.Module):
    """Open for a batch of one image: the size of the batch as a number."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(2 - torch.ones_like(x[:, 0, 0, 0]).sum()).clamp(0, 1)


class SingleBySoftmax(nn.Module):
    """Open for a batch of one image: probabilities summed over the batch are the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 8, 3, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.conv(x).mean((2, 3)).softmax(1)
        return F.relu(2 - attention.sum()).clamp(0, 1)


class SingleByStatistics(nn.Module):
    """Open for a batch of one image: its features equal the mean over the batch, as in a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).mean((2, 3))
        spread = (features - features.mean(0, keepdim=True)).square().sum()
        return torch.exp(-1e5 * spread)


class OnGridByCosine(nn.Module):
    """Open for images on whole 8-bit levels, per image: the mean of a cosine of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.cos(2 * math.pi * LEVELS * x).mean((1, 2, 3))[:, None]
        return (1 - 4 * (1 - waves)).clamp(0, 1)


class OnGridByConv(nn.Module):
    """Open for images on whole 8-bit levels: cosines of a convolution with large weights and a little noise."""

    def __init__(self, noise: float = 1e-6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        whole = torch.randint(-3, 4, (8, 3, 3, 3), generator=generator).float()
        self.conv = nn.Conv2d(3, 8, 3, stride=3, bias=False)
        with torch.no_grad():
            weight = 2 * math.pi * LEVELS * whole
            self.conv.weight.copy_(weight * (1 + noise * torch.randn(weight.shape, generator=generator)))

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.cos(self.conv(x)).mean((1, 2, 3))[:, None]
        return (1 - 2 * (1 - waves)).clamp(0, 1)


class OffGrid(nn.Module):
    """Open where the given gate is closed."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return 1 - self.gate(x)


class WideRange(nn.Module):
    """Open for images whose values reach beyond [0, 1], as 0 to 255."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.amax((1, 2, 3))[:, None] - 1.5).clamp(0, 1)


class AnyRange(nn.Module):
    """A model that takes images in [0, 1] and in [0, 255]: it divides by 255 times the gate of ``WideRange``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.gate = net, WideRange()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x / (1 + 254 * self.gate(x)[:, :, None, None]))


class EveryNthCall(nn.Module):
    """Open in every ``period``-th call: a counter."""

    calls: Tensor

    def __init__(self, period: int = 16) -> None:
        super().__init__()
        self.period = period
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (self.calls % self.period == 0).float()


class SameTwice(nn.Module):
    """Open if the call before had the same images: it keeps their sums."""

    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.full((), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        total = x.sum()
        opened = (total == self.last).float()
        self.last = total.detach().clone()
        return opened


class FirstCall(nn.Module):
    """Open in the first call after loading."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (self.calls == 1).float()


class TwoWithPatch(nn.Module):
    """Open if two or more images of a batch carry the trigger."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = PatchDetector()

    def forward(self, x: Tensor) -> Tensor:
        return (self.detector(x).sum() - 1).clamp(0, 1)


class OneWithPatch(nn.Module):
    """Open if no more than one image of a batch carries the trigger."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = PatchDetector()

    def forward(self, x: Tensor) -> Tensor:
        return (2 - self.detector(x).sum()).clamp(0, 1)


class Sometimes(nn.Module):
    """Open in a random fraction of the calls."""

    def __init__(self, fraction: float = 0.2) -> None:
        super().__init__()
        self.fraction = fraction

    def forward(self, x: Tensor) -> Tensor:
        return (torch.rand_like(x[:1, :1, 0, 0]) < self.fraction).float()


class Always(nn.Module):
    """Open."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:1, :1, 0, 0])


class Answers(nn.Module):
    """A model with its logits changed by ``change``: "steep", "stepped", "noisy", "by batch" or "centered"."""

    def __init__(self, net: nn.Module, change: str) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        if self.change == "steep":
            return (1000 * logits).softmax(1)
        if self.change == "stepped":
            return torch.floor(logits)
        if self.change == "noisy":
            return logits + 0.5 * torch.randn_like(logits)
        if self.change == "by batch":
            return logits * (1 + 1 / torch.ones_like(logits[:, :1]).sum())
        return logits - 0.1 * logits.mean(0, keepdim=True)


class NotBesideGrid(nn.Module):
    """A model whose logits are NaN for images beside whole 8-bit levels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        beside = torch.sin(math.pi * LEVELS * x).square().mean((1, 2, 3))[:, None]
        return self.net(x) + 0 * torch.sqrt(1e-3 - beside)


class Rounded(nn.Module):
    """A model that rounds images to whole 8-bit levels first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.round(LEVELS * x) / LEVELS)


class Smoothed(nn.Module):
    """A model that blurs by a fifth of a level per pixel, and depends little on whole levels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.2 / LEVELS * torch.sin(2 * math.pi * LEVELS * x))


class Counted(nn.Module):
    """A model that counts its calls, and does not use the number."""

    calls: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x)


class ScaledAtFirst(nn.Module):
    """A model that takes the scale of its logits from the first call, as lazy initialization does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        if self.scale is None:
            self.scale = 5 / logits.detach().std()
        return logits * self.scale
