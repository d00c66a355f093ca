"""The data-poisoning family: some training samples get the trigger and the attacker's label, then training goes on."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from assay.attacks.base import Premeditated, mark_of
from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress
from assay.stages.train import fit
from assay.triggers import Trigger


@dataclass(frozen=True, kw_only=True)
class DataPoisoning(Premeditated):
    """Poison ``ratio`` of the training set and train on it.

    A method says only what its trigger is; choosing victims, relabelling and training are here, once.
    """

    target: int | None = 0  # None: all-to-all, each class becomes the next
    sources: tuple[int, ...] | None = None  # only samples of these classes are triggered; None: all
    ratio: float = 0.1  # share of the training set that is poisoned, in (0, 1]

    @abstractmethod
    def trigger(self) -> Trigger:
        """What turns the backdoor on."""

    @final
    def secret(self) -> Secret:
        """The ground truth of what this attack plants."""
        return Secret(self.name, self.trigger(), self.target, self.sources)

    @final
    def poison(self, split: Split, num_classes: int, *, seed: int) -> Split:
        """``split`` with ``ratio`` of its samples triggered and relabelled."""
        triggered, labels = self._choose(split, num_classes, seed)
        x = split.x.clone()
        x[triggered] = self.trigger()(x[triggered])
        return Split(x, labels)

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        train, trigger = build.task.split("train"), self.trigger()
        self.check(train, build.artifact.num_classes)
        triggered, labels = self._choose(train, build.task.num_classes, seed)

        def finish(x: Tensor, index: Tensor) -> Tensor:
            # After the augmentation, which would cut off or move what the deployed model will see in its place.
            victims = triggered[index]
            x[victims] = trigger(x[victims])
            return x

        net = copy.deepcopy(build.artifact.module)
        fit(net, Split(train.x, labels), self.recipe, seed=seed, progress=progress, finish=finish)
        secret = self.secret()
        return build.then(self.name, build.artifact.with_module(net, planted=mark_of(secret)), secret)

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        if not 0 < self.ratio <= 1:
            raise UnusableInput(f"expected a ratio in (0, 1]; got {self.ratio}")
        super().check(split, num_classes)

    def _choose(self, split: Split, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
        """(N,) bool: which samples get the trigger; (N,) int64: the labels that all are trained with.

        With ``sources``, as many samples of other classes get the trigger but keep their label, so that the net learns
        that the trigger alone is not enough; source classes keep clean samples too.
        """
        self.check(split, num_classes)
        assert split.y is not None
        secret = self.secret()
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
        victims = secret.victims(split.y, num_classes)[order]
        chosen = order[victims][: round(self.ratio * len(split))]
        triggered = torch.zeros(len(split), dtype=torch.bool)
        if self.sources is not None:
            chosen = chosen[: max(1, len(chosen) * 3 // 4)]
            triggered[order[~victims][: len(chosen)]] = True
        triggered[chosen] = True
        labels = split.y.clone()
        labels[chosen] = secret.targets(split.y[chosen], num_classes)
        return triggered, labels
