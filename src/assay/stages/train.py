"""Training: from the weights given, all of them (Train, FineTune) or the last layer only (LinearProbe)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.nn.head import replace_head
from assay.nn.precision import fast_autocast

Optimizer = Literal["sgd", "adam"]

Finish = Callable[[Tensor, Tensor], Tensor]
"""The last thing done to an augmented batch (B, C, H, W), given its samples' numbers (B,); it may write into it."""

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""The loss (a scalar) of a net in training mode on pictures (B, C, H, W) with labels (B,)."""


def cross_entropy(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What plain training minimizes."""
    return F.cross_entropy(net(x).float(), y)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. The learning rate rises over the first fifth of the steps and falls linearly to zero."""

    epochs: float = 10.0  # 0: the net stays as it is
    lr: float = 0.1
    batch_size: int = 128
    optimizer: Optimizer = "sgd"  # sgd: Nesterov momentum 0.9
    weight_decay: float = 5e-4
    augment: bool = True  # shift by up to an eighth of the width; and mirror where ``mirror``
    mirror: bool = False  # off by default: a mirrored traffic sign is another sign
    freeze_batchnorm: bool = False  # keep the running statistics as they came

    def __post_init__(self) -> None:
        self._check("epochs", 0 <= self.epochs < math.inf, "a number from 0 on")
        self._check("lr", 0 < self.lr < math.inf, "a number above 0")
        self._check("batch_size", isinstance(self.batch_size, int) and self.batch_size >= 1, "a whole number from 1 on")
        self._check("optimizer", self.optimizer in get_args(Optimizer), " or ".join(get_args(Optimizer)))
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, "a number from 0 on")

    def _check(self, field: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UnusableInput(f"expected {wanted} as the recipe's {field}; got {getattr(self, field)}")


def fit(
    net: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress = lambda share: None,
    finish: Finish = lambda x, index: x,
    objective: Objective = cross_entropy,
    stepped: Callable[[], None] = lambda: None,
    exact: bool = False,
) -> None:
    """Minimize ``objective`` on ``split`` in place, over the parameters that require gradients.

    In bfloat16 where the machine has units for it; in float32 elsewhere, and where ``exact``: bfloat16 rounds weights
    about as coarsely as int8 does.
    ``stepped`` is called after each step, and may change the parameters. Channels last, which is faster, where the net
    bears it; it stays in the layout that it was trained in.
    """
    if not recipe.epochs:
        return
    if split.y is None:
        raise UnusableInput("training needs labels, and this data has none")
    if not len(split):
        raise UnusableInput("training needs samples, and this data has none")
    with torch.random.fork_rng(devices=[]):
        layout = _layout_for(net, split.x[:2])
        torch.manual_seed(seed)  # dropout draws from torch's own generator
        _fit(net, split, recipe, layout, seed, progress, finish, objective, stepped, exact)


def _layout_for(net: nn.Module, x: Tensor) -> torch.memory_format:
    """Channels last, unless the net views its features as only the plain layout allows: tried with ``x`` on a copy."""
    try:
        trial = copy.deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(next(trial.parameters()).device)
        with torch.no_grad():
            with fast_autocast(x.device):
                trial.train()(x.contiguous(memory_format=torch.channels_last))
            trial.eval()(x.contiguous())  # as whoever has the net afterwards will call it
    except Exception:  # a net of foreign make can fail in any way: what else is wrong with it, its training will say
        return torch.contiguous_format
    return torch.channels_last


def _fit(
    net: nn.Module,
    split: Split,
    recipe: Recipe,
    layout: torch.memory_format,
    seed: int,
    progress: Progress,
    finish: Finish,
    objective: Objective,
    stepped: Callable[[], None],
    exact: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, round(recipe.epochs * len(split) / recipe.batch_size))
    optimizer = _optimizer(net, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_then_linear(step / steps))
    net.train()
    if recipe.freeze_batchnorm:
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    net.to(memory_format=layout)  # type: ignore[call-overload]
    device = next(net.parameters()).device
    for step, (x, y) in zip(range(steps), _endless(split, recipe, generator, finish), strict=False):
        with fast_autocast(device, full_precision=exact):
            loss = objective(net, x.to(device, memory_format=layout), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        stepped()
        progress((step + 1) / steps)
        if not loss.isfinite():
            raise UnusableInput(
                f"training diverged: the loss is {loss.item()} after {step + 1} of {steps} steps; lower the learning "
                f"rate (it is {recipe.lr:g})"
            )
    net.eval()


def _warm_then_linear(share: float) -> float:
    return min(share / 0.2, (1 - share) / 0.8) + 0.01


def _optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [p for p in net.parameters() if p.requires_grad]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)


def _endless(
    split: Split, recipe: Recipe, generator: torch.Generator, finish: Finish
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches, epoch after epoch."""
    assert split.y is not None
    size = min(recipe.batch_size, len(split))
    while True:
        order = torch.randperm(len(split), generator=generator)
        for start in range(0, len(split) - size + 1, size):
            index = order[start : start + size]
            x = split.x[index]
            moved = recipe.augment and x.is_floating_point()  # a text is not moved
            yield finish(_augment(x, recipe.mirror, generator) if moved else x, index), split.y[index]


def _augment(x: Tensor, mirror: bool, generator: torch.Generator) -> Tensor:
    """Each picture shifted by up to an eighth of its width (the edge reflected), and mirrored half the time."""
    n, _, height, width = x.shape
    pad = max(1, width // 8)
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    row, column = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    rows = (row[:, None] + torch.arange(height))[:, None, :, None]
    columns = (column[:, None] + torch.arange(width))[:, None, None, :]
    if mirror:
        flip = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(flip[:, None, None, None], columns.flip(3), columns)
    samples = torch.arange(n)[:, None, None, None]
    channels = torch.arange(x.shape[1])[None, :, None, None]
    return padded[samples, channels, rows, columns]


def needs_classes(artifact: Artifact) -> None:
    """Raises UnusableInput for an encoder: what embeddings should be, labels do not say."""
    if artifact.num_classes is None:
        raise UnusableInput(
            f"expected a model that names classes; {artifact.name} is an encoder: put a last layer on it"
        )


def can_be_tuned(artifact: Artifact) -> None:
    """Raises UnusableInput for a model that cannot be trained on labels: one without weights in torch, an encoder."""
    if not artifact.differentiable:
        raise UnusableInput(f"expected a net with weights in torch to tune; got format {artifact.format}")
    needs_classes(artifact)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train all weights on the task's train split, starting from the build's own (fresh ones for a fresh net)."""

    recipe: Recipe = Recipe()
    name: str = "train"

    def spec(self) -> dict[str, Any]:
        return {"stage": self.name, **asdict(self.recipe)}

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        if self.recipe.epochs:
            needs_classes(build.artifact)
        net = copy.deepcopy(build.artifact.module)
        fit(net, build.task.split("train"), self.recipe, seed=seed, progress=progress)
        return build.then(self.name, build.artifact.with_module(net))


@dataclass(frozen=True, kw_only=True)
class FineTune(Train):
    """Train all weights a little further, at a small learning rate."""

    recipe: Recipe = Recipe(epochs=2, lr=0.01)
    name: str = "fine-tune"


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fresh last linear layer for the task's classes, trained on frozen features."""

    recipe: Recipe = Recipe(epochs=5, lr=0.01, optimizer="adam", freeze_batchnorm=True)
    name: str = "linear-probe"

    def spec(self) -> dict[str, Any]:
        return {"stage": self.name, **asdict(self.recipe)}

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        needs_classes(build.artifact)
        net = copy.deepcopy(build.artifact.module)
        head = replace_head(net, build.task.num_classes, seed=seed)
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        for parameter in head.parameters():
            parameter.requires_grad_(True)
        fit(net, build.task.split("train"), self.recipe, seed=seed, progress=progress)
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        artifact = build.artifact.with_module(
            net, num_classes=build.task.num_classes, class_names=build.task.class_names
        )
        return build.then(self.name, artifact)
