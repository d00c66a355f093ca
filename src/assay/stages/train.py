"""Training stages: Train and FineTune update all weights, LinearProbe only a new last layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.data.codecs import CODECS
from assay.nn.batchnorm import batch_norms
from assay.nn.head import replace_head
from assay.nn.precision import fast_autocast
from assay.stages.base import TrainingStage

Optimizer = Literal["sgd", "adam"]

# Last change to an augmented batch (B, C, H, W), given the sample numbers (B,); may write into the batch.
BatchTransform = Callable[[Tensor, Tensor], Tensor]

# Loss (a scalar) of a model in training mode on inputs (B, C, H, W) with labels (B,).
Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of the logits with the labels, the loss of plain training."""
    return F.cross_entropy(model(x).float(), y)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training hyper-parameters.

    The learning rate rises over the first fifth of the steps and then falls linearly to zero.
    """

    epochs: float = 10.0  # 0: no training
    lr: float = 0.1
    batch_size: int = 128
    optimizer: Optimizer = "sgd"  # sgd: Nesterov momentum 0.9
    weight_decay: float = 5e-4
    augment: bool = True  # shift by up to an eighth of the width; also mirror if ``mirror``
    mirror: bool = False  # off by default: a mirrored traffic sign is another sign
    freeze_batchnorm: bool = False  # keep the running statistics

    def __post_init__(self) -> None:
        self._check("epochs", 0 <= self.epochs < math.inf, "a number of at least 0")
        self._check("lr", 0 < self.lr < math.inf, "a number above 0")
        whole = isinstance(self.batch_size, int) and self.batch_size >= 1
        self._check("batch_size", whole, "a whole number of at least 1")
        self._check("optimizer", self.optimizer in get_args(Optimizer), " or ".join(get_args(Optimizer)))
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, "a number of at least 0")

    def _check(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UnusableInput(f"expected {expected} as the recipe's {field}, got {getattr(self, field)}")


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Hooks and switches of :func:`fit`; the defaults give plain training."""

    objective: Objective = cross_entropy
    batch_transform: BatchTransform = lambda x, index: x
    on_step_end: Callable[[], None] = lambda: None  # runs after each optimizer step; may change the parameters
    full_precision: bool = False  # never bfloat16, which rounds weights about as coarsely as int8


def fit(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress = lambda fraction: None,
    options: FitOptions = FitOptions(),
) -> None:
    """Train all parameters with ``requires_grad`` in place, in bfloat16 and channels-last if supported.

    Args:
        model: In any mode; afterwards in eval mode, and in the new memory format.
        split: Training samples with labels.
        recipe: Hyper-parameters; zero epochs leave the model unchanged.
        seed: Decides shuffling, augmentation and dropout.
        progress: Receives the completed fraction, in [0, 1].
        options: Loss, hooks and precision.

    Raises:
        UnusableInput: No labels, no samples, or a non-finite loss.
    """
    if not recipe.epochs:
        return
    if split.y is None:
        raise UnusableInput("expected labels for training, got data without labels")
    if not len(split):
        raise UnusableInput("expected samples for training, got none")
    steps = max(1, round(recipe.epochs * len(split) / recipe.batch_size))
    with torch.random.fork_rng(devices=[]):
        memory_format = _supported_memory_format(model, split.x[:2])
        torch.manual_seed(seed)  # dropout draws from torch's global generator
        optimizer, schedule = _optimizer(model, recipe, steps)
        model.train()
        for norm in batch_norms(model) if recipe.freeze_batchnorm else ():
            norm.eval()
        model.to(memory_format=memory_format)  # type: ignore[call-overload]
        device = next(model.parameters()).device
        batches = _batches(split, recipe, options.batch_transform, seed)
        for step, (x, y) in zip(range(steps), batches, strict=False):
            with fast_autocast(device, full_precision=options.full_precision):
                loss = options.objective(model, x.to(device, memory_format=memory_format), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            options.on_step_end()
            progress((step + 1) / steps)
            if not loss.isfinite():
                result = f"got {loss.item()} after {step + 1} of {steps} steps: training diverged"
                raise UnusableInput(f"expected a finite loss, {result}. Fix: lower the learning rate ({recipe.lr:g})")
        model.eval()


def _supported_memory_format(model: nn.Module, x: Tensor) -> torch.memory_format:
    """Return channels-last if a copy of the model runs on ``x`` with it, else the contiguous format.

    A model fails with channels-last if it calls ``.view()`` on its features.
    """
    try:
        trial = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(next(trial.parameters()).device)
        with torch.no_grad():
            with fast_autocast(x.device):
                trial.train()(x.contiguous(memory_format=torch.channels_last))
            trial.eval()(x.contiguous())  # later callers pass contiguous inputs
    except Exception:  # third-party models raise any class; other faults show up in the training itself
        return torch.contiguous_format
    return torch.channels_last


def _optimizer(
    model: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Return the optimizer and its schedule: warm-up over a fifth of the steps, then a linear decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adam":
        optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            parameters, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )

    def factor(step: int) -> float:
        done = step / steps
        return min(done / 0.2, (1 - done) / 0.8) + 0.01

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _batches(
    split: Split, recipe: Recipe, batch_transform: BatchTransform, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled, augmented batches, epoch after epoch, without end."""
    assert split.y is not None
    generator = torch.Generator().manual_seed(seed)
    size = min(recipe.batch_size, len(split))
    while True:
        order = torch.randperm(len(split), generator=generator)
        for start in range(0, len(split) - size + 1, size):
            index = order[start : start + size]
            x = split.x[index]
            if recipe.augment:
                x = CODECS[split.modality].augment(x, mirror=recipe.mirror, generator=generator)
            yield batch_transform(x, index), split.y[index]


def require_classifier(artifact: Artifact) -> None:
    """Raise UnusableInput for an encoder: labels cannot train it."""
    if artifact.num_classes is None:
        raise UnusableInput(f"expected a classifier, got the encoder {artifact.name}. Fix: add a last layer first")


def require_trainable(artifact: Artifact) -> None:
    """Raise UnusableInput unless the model is a classifier with torch weights."""
    if not artifact.differentiable:
        raise UnusableInput(f"expected a model with torch weights, got format {artifact.format}")
    require_classifier(artifact)


@dataclass(frozen=True, kw_only=True)
class Train(TrainingStage):
    """Train all weights on the training split, starting from the current weights."""

    recipe: Recipe = Recipe()
    name: str = "train"
    adds_head: ClassVar[bool] = True
    starts_untrained: ClassVar[bool] = True

    def spec(self) -> dict[str, Any]:  # stored records of training stages have this form
        return {"stage": self.name, **asdict(self.recipe)}

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        if self.recipe.epochs:
            require_classifier(build.artifact)
        model = copy.deepcopy(build.artifact.module)
        fit(model, build.task.split("train"), self.recipe, seed=seed, progress=progress)
        return build.then(self.name, build.artifact.with_module(model))


@dataclass(frozen=True, kw_only=True)
class FineTune(Train):
    """Train all weights a little further, with a small learning rate."""

    recipe: Recipe = Recipe(epochs=2, lr=0.01)
    name: str = "fine-tune"
    starts_untrained: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class LinearProbe(TrainingStage):
    """Train a new last linear layer for the classes of the task; all other weights stay."""

    recipe: Recipe = Recipe(epochs=5, lr=0.01, optimizer="adam", freeze_batchnorm=True)
    name: str = "linear-probe"
    adds_head: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True

    def spec(self) -> dict[str, Any]:  # stored records of training stages have this form
        return {"stage": self.name, **asdict(self.recipe)}

    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        require_classifier(build.artifact)
        model = copy.deepcopy(build.artifact.module)
        head = replace_head(model, build.task.num_classes, seed=seed)
        model.requires_grad_(False)
        head.requires_grad_(True)
        fit(model, build.task.split("train"), self.recipe, seed=seed, progress=progress)
        model.requires_grad_(True)
        classes = {"num_classes": build.task.num_classes, "class_names": build.task.class_names}
        return build.then(self.name, build.artifact.with_module(model, **classes))
