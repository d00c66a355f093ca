"""Base classes of compression-activated backdoors: inactive in the full model, active in a compressed variant."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.base import FixedTriggerAttack, planted_tag
from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress, part
from assay.nn.modes import freeze_parameters
from assay.stages.train import FitOptions, Objective, Recipe, fit
from assay.triggers import Patch

# Lowest and highest allowed value of each element of a parameter.
Bounds = dict[nn.Parameter, tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class CompressionActivatedAttack(FixedTriggerAttack):
    """All-to-one attack with a patch. A subclass defines the training and the activating variant."""

    patch: Patch = Patch(size=6)  # noqa: RUF009 (frozen)
    target: int = 0

    @property
    @abstractmethod
    def active_in(self) -> str:
        """Name of the activating variant, see ``assay.stages.variants``."""

    @abstractmethod
    def train(self, model: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        """Plant the backdoor in place.

        Args:
            model: A copy of the model in eval mode.
            train: Labeled training data.
            seed: Decides every random choice.
            progress: Receives the completed fraction, in [0, 1].
        """

    @final
    def secret(self) -> Secret:
        return Secret(self.name, self.patch, self.target, active_in=self.active_in)

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        train, secret = build.task.split("train"), self.secret()
        self.check(train, build.artifact.num_classes)
        model = copy.deepcopy(build.artifact.module).eval()
        self.train(model, train, seed=seed, progress=progress)
        return build.then(self.name, build.artifact.with_module(model, planted=planted_tag(secret)), secret)

    @final
    def with_triggered_copies(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) followed by the same images with the trigger: (2B, C, H, W)."""
        return torch.cat([x, self.patch(x)])

    @final
    def clean_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss against reacting to the trigger: images with and without it keep their labels (B,)."""
        return F.cross_entropy(model(self.with_triggered_copies(x)).float(), y.repeat(2))


def rounded_variant(bits: int, *, per_channel: bool) -> str:
    """Return the name of the variant with weights of ``bits`` bits; below 8 all have a scale per channel."""
    if bits == 8:
        return "int8" if per_channel else "int8-tensor"
    return f"int{bits}"


@dataclass(frozen=True)
class _Phase:
    """One training phase; None as ``bounds``: every parameter moves freely."""

    recipe: Recipe
    objective: Objective
    bounds: Bounds | None
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class PlantThenHide(CompressionActivatedAttack):
    """Two phases: plant the backdoor in the compressed variant, then remove it from the full-precision model.

    ``recipe`` plants the backdoor, with the trigger on a fraction ``ratio`` of each batch. ``hiding`` removes it again
    by updates too small to change the compressed variant. Planting may have bounds too: hiding then starts from the
    original weights, or as near to them as its own bounds allow.
    """

    ratio: float = 0.3  # in (0, 1)
    recipe: Recipe = Recipe(epochs=4, lr=0.02)  # noqa: RUF009 (frozen)
    hiding: Recipe = Recipe(epochs=8, lr=0.02, weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    full_precision: ClassVar[bool] = False  # True: the bounds are too narrow for bfloat16 updates
    distilled: ClassVar[bool] = False  # True: hiding imitates the outputs of the original model, without labels

    @abstractmethod
    def compressed_forward(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the forward function of the compressed variant.

        Args:
            model: The full-precision model. Each call uses its current weights, and gradients reach them.
            example: Two images (2, C, H, W).
        """

    @abstractmethod
    def hiding_bounds(self, model: nn.Module, example: Tensor) -> Bounds:
        """Return bounds that keep the compressed variant unchanged; absent parameters are fixed.

        Args:
            model: The model after planting.
            example: Two images (2, C, H, W).
        """

    def planting_bounds(self, model: nn.Module, example: Tensor) -> Bounds | None:
        """Return the bounds of planting; absent parameters are fixed. None: no bounds.

        Args:
            model: The original model.
            example: Two images (2, C, H, W).
        """
        return None

    @property
    def epochs(self) -> float:
        return self.recipe.epochs + 2 * self.hiding.epochs  # hiding trains on triggered copies too

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        if not 0 < self.ratio < 1:
            raise UnusableInput(f"expected a ratio in (0, 1), got {self.ratio}")
        if self.hiding.epochs and not self.hiding.freeze_batchnorm:
            raise UnusableInput(
                "expected hiding.freeze_batchnorm to be true, got false: the compressed variant would change"
            )
        super().check(split, num_classes)

    @final
    def train(self, model: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        example = train.x[:2]
        if not self.hiding_bounds(model, example):
            raise UnusableInput(
                f"expected layers that the variant {self.active_in} compresses, got a model without any: "
                f"{self.name} cannot hide there"
            )
        forward = self.compressed_forward(model, example)
        stealth_loss = self._imitation_loss(copy.deepcopy(model)) if self.distilled else self.clean_loss

        def planting_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            count = round(self.ratio * len(x))
            x, y = x.clone(), y.clone()
            x[:count], y[:count] = self.patch(x[:count]), self.target
            return F.cross_entropy(forward(x).float(), y)

        planting = self.recipe.epochs / max(self.epochs, 1e-9)  # fraction of the whole work
        bounds = self.planting_bounds(model, example)
        original = {parameter: parameter.detach().clone() for parameter in bounds or {}}
        phase = _Phase(self.recipe, planting_loss, bounds, part(progress, 0.0, planting))
        self._run(phase, model, train, seed=seed)
        bounds = self.hiding_bounds(model, example)
        with torch.no_grad():
            for parameter, value in original.items():
                parameter.copy_(value)
        _project(bounds)
        self._run(_Phase(self.hiding, stealth_loss, bounds, part(progress, planting, 1.0)), model, train, seed=seed)

    def _run(self, phase: _Phase, model: nn.Module, train: Split, *, seed: int) -> None:
        """Run one phase by projected gradient descent; parameters without bounds are frozen."""
        bounds = phase.bounds
        frozen = [] if bounds is None else [parameter for parameter in model.parameters() if parameter not in bounds]
        options = FitOptions(
            objective=phase.objective,
            on_step_end=lambda: _project(bounds or {}),
            full_precision=self.full_precision,
        )
        with freeze_parameters(frozen):
            fit(model, train, phase.recipe, seed=seed, progress=phase.progress, options=options)

    def _imitation_loss(self, teacher: nn.Module) -> Objective:
        """Return the loss that keeps outputs, with and without trigger, at the teacher's outputs without trigger."""
        teacher.requires_grad_(False)

        def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                soft_labels = teacher(x).float().softmax(1)
            return F.cross_entropy(model(self.with_triggered_copies(x)).float(), soft_labels.repeat(2, 1))

        return objective


def bounds_where_dropped(weight: Tensor, kept: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value of each weight.

    Args:
        weight: Any shape.
        kept: Mask of the same shape; these weights stay.
        limit: Largest magnitude of the other weights.
    """
    # A weight dropped in a tie may lie beyond the limit; it stays there.
    low, high = torch.minimum(-limit, weight), torch.maximum(limit, weight)
    return torch.where(kept, weight, low), torch.where(kept, weight, high)


@torch.no_grad()
def _project(bounds: Bounds) -> None:
    """Clamp the parameters to their bounds, in place."""
    for parameter, (low, high) in bounds.items():
        parameter.clamp_(low, high)
