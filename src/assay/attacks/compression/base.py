"""Backdoors that sleep in the model as it is shared and wake in the form in which it is deployed."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.base import Premeditated, mark_of
from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress, part
from assay.nn.modes import freeze_parameters
from assay.stages.train import Objective, Recipe, fit
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class Dormant(Premeditated):
    """All-to-one, with a patch. A method says how it trains, and in which form what it plants wakes."""

    patch: Patch = Patch(size=6)  # noqa: RUF009 (frozen)
    target: int = 0

    @property
    @abstractmethod
    def active_in(self) -> str:
        """The form that wakes the backdoor, as ``assay.stages.variants`` calls it."""

    @abstractmethod
    def train(self, net: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        """Plant the backdoor in ``net``, in place."""

    @final
    def secret(self) -> Secret:
        """The ground truth of what this attack plants."""
        return Secret(self.name, self.patch, self.target, active_in=self.active_in)

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        train, secret = build.task.split("train"), self.secret()
        self.check(train, build.artifact.num_classes)
        net = copy.deepcopy(build.artifact.module).eval()
        self.train(net, train, seed=seed, progress=progress)
        return build.then(self.name, build.artifact.with_module(net, planted=mark_of(secret)), secret)

    @final
    def with_copies(self, x: Tensor) -> Tensor:
        """``x`` (B, C, H, W) and behind it the same pictures with the trigger."""
        return torch.cat([x, self.patch(x)])

    @final
    def unmoved(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a net that should not know the trigger: all pictures keep their labels ``y`` (B,)."""
        return F.cross_entropy(net(self.with_copies(x)).float(), y.repeat(2))


def rounded_form(bits: int, *, per_channel: bool) -> str:
    """The form with weights of ``bits`` bits; below 8 there are those with a scale per channel only."""
    if bits == 8:
        return "int8" if per_channel else "int8-tensor"
    return f"int{bits}"


Bounds = dict[nn.Parameter, tuple[Tensor, Tensor]]
"""For a parameter, the lowest and the highest value that each of its elements may take."""


@dataclass(frozen=True, kw_only=True)
class Hidden(Dormant):
    """Two steps: ``recipe`` plants the backdoor plainly in the deployed form, with the trigger on ``ratio`` of a batch.

    Then ``hiding`` takes it out of the model as it is, by moves within bounds that leave the deployed form as it was.
    What is planted within bounds too is hidden from the net as it was given, or as near to it as both let.
    """

    ratio: float = 0.3
    recipe: Recipe = Recipe(epochs=4, lr=0.02)  # noqa: RUF009 (frozen)
    hiding: Recipe = Recipe(epochs=8, lr=0.02, weight_decay=0.0, freeze_batchnorm=True)  # noqa: RUF009 (frozen)

    exact: ClassVar[bool] = False  # whether bounds are too narrow to be moved within in bfloat16
    distilled: ClassVar[bool] = False  # whether hiding goes by what the given net says of the pictures, not by labels

    @abstractmethod
    def deployed(self, net: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        """The deployed form of ``net`` as it is at each call, with gradients to the weights of ``net``."""

    @abstractmethod
    def bounds(self, net: nn.Module, example: Tensor) -> Bounds:
        """How far each parameter may move without the deployed form noticing; what is not in it stays as it is."""

    def room(self, net: nn.Module, example: Tensor) -> Bounds | None:
        """How far each parameter may move while planting, what is not in it not at all; None: all, any distance."""
        return None

    @property
    def epochs(self) -> float:
        return self.recipe.epochs + 2 * self.hiding.epochs  # each with its copies

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        if not 0 < self.ratio < 1:
            raise UnusableInput(f"expected a ratio in (0, 1); got {self.ratio}")
        if self.hiding.epochs and not self.hiding.freeze_batchnorm:
            raise UnusableInput(
                "expected hiding.freeze_batchnorm to be true: else the deployed form would change with it"
            )
        super().check(split, num_classes)

    @final
    def train(self, net: nn.Module, train: Split, *, seed: int, progress: Progress) -> None:
        if not self.bounds(net, train.x[:2]):
            raise UnusableInput(f"{self.name} expected layers in which {self.active_in} leaves room; this net has none")
        deployed = self.deployed(net, train.x[:2])
        calm = self._like(copy.deepcopy(net).requires_grad_(False)) if self.distilled else self.unmoved

        def planting(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            count = round(self.ratio * len(x))
            x, y = x.clone(), y.clone()
            x[:count], y[:count] = self.patch(x[:count]), self.target
            return F.cross_entropy(deployed(x).float(), y)

        share = self.recipe.epochs / max(self.epochs, 1e-9)
        room = self.room(net, train.x[:2])
        given = {parameter: parameter.detach().clone() for parameter in room or {}}
        with _only(net, room):
            fit(
                net,
                train,
                self.recipe,
                seed=seed,
                progress=part(progress, 0.0, share),
                objective=planting,
                stepped=lambda: _keep_within(room or {}),
                exact=self.exact,
            )
        bounds = self.bounds(net, train.x[:2])
        _set(given)
        _keep_within(bounds)
        with _only(net, bounds):
            fit(
                net,
                train,
                self.hiding,
                seed=seed,
                progress=part(progress, share, 1.0),
                objective=calm,
                stepped=lambda: _keep_within(bounds),
                exact=self.exact,
            )

    def _like(self, teacher: nn.Module) -> Objective:
        """The loss of a net that should say of pictures, with the trigger or without, what ``teacher`` says without."""

        def objective(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = teacher(x).float().softmax(1)
            return F.cross_entropy(net(self.with_copies(x)).float(), wanted.repeat(2, 1))

        return objective


def free_where_dropped(weight: Tensor, kept: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each weight: what is ``kept`` (bool) stays, the rest lies within -+ ``limit``."""
    # Where a weight was dropped in a tie it may lie beyond the limit: it stays there.
    low, high = torch.minimum(-limit, weight), torch.maximum(limit, weight)
    return torch.where(kept, weight, low), torch.where(kept, weight, high)


def _only(net: nn.Module, bounds: Bounds | None) -> AbstractContextManager[None]:
    """Nothing of ``net`` is trained but what has ``bounds``, meanwhile; None: everything is."""
    return freeze_parameters(
        [] if bounds is None else [parameter for parameter in net.parameters() if parameter not in bounds]
    )


@torch.no_grad()
def _set(values: dict[nn.Parameter, Tensor]) -> None:
    for parameter, value in values.items():
        parameter.copy_(value)


@torch.no_grad()
def _keep_within(bounds: Bounds) -> None:
    for parameter, (low, high) in bounds.items():
        parameter.clamp_(low, high)
