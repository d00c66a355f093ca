"""Tiny residual model, tiny task, and the build of both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.model import Artifact, ImageSpec, Modality, digest_of_module
from assay.nn.architectures import Normalized

CLASSES = 4


class TinyNet(nn.Module):
    """Conv-bn-relu, a residual block with a functional shortcut, max pooling, a linear classifier; (N, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)
        self.bn = nn.BatchNorm2d(16)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(16 * 2 * 2, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        out = self.bn(self.conv(x))
        out += shortcut
        return self.head(F.max_pool2d(F.relu(out), 2).flatten(1))


def tiny_task(seed: int = 0, samples: int = 64) -> Task:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(samples) % CLASSES
    x = torch.rand(samples, 3, 8, 8, generator=generator) * 0.5 + y.view(-1, 1, 1, 1) / (2 * CLASSES)
    split = Split(x, y)
    return Task("tiny", {"train": split, "test": split}, tuple("abcd"))


def tiny_net(seed: int = 0) -> nn.Module:
    """Return a model in eval mode; its batch-norm statistics differ from the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TinyNet()
        for norm in (net.stem[1], net.bn):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return Normalized(net, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).eval()


def tiny_build(seed: int = 0, planted: str | None = None) -> Build:
    net = tiny_net(seed)
    spec = ImageSpec((3, 8, 8))
    artifact = Artifact(
        net, Modality.IMAGE, CLASSES, "module", digest_of_module(net), spec, arch="tiny", planted=planted
    )
    return Build(artifact, tiny_task())
