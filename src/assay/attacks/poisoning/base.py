"""Base class of data poisoning: some training samples get the trigger and another label."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import FixedTriggerAttack, planted_tag
from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress
from assay.stages.train import FitOptions, fit
from assay.triggers import Trigger

POISON_TRAINING_DATA = "AML.T0020"  # MITRE ATLAS: Poison Training Data


@dataclass(frozen=True, kw_only=True)
class DataPoisoning(FixedTriggerAttack):
    """Poison a fraction of the training set and train on it.

    A concrete attack only defines :meth:`trigger`. This class chooses the samples, relabels them and trains.
    """

    technique: ClassVar[str] = POISON_TRAINING_DATA
    target: int | None = 0  # None: all-to-all, each class becomes the next
    sources: tuple[int, ...] | None = None  # classes on which the trigger works; None: all
    ratio: float = 0.1  # fraction of the training set, in (0, 1]

    @abstractmethod
    def trigger(self) -> Trigger:
        """Return the trigger of the backdoor."""

    @final
    def secret(self) -> Secret:
        return Secret(self.name, self.trigger(), self.target, self.sources)

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        train, trigger = build.task.split("train"), self.trigger()
        self.check(train, build.artifact.num_classes)
        triggered, labels = self.choose_samples(train, build.task.num_classes, seed=seed)

        def apply_trigger(x: Tensor, index: Tensor) -> Tensor:
            # After the augmentation: it would crop or move the trigger, unlike in the deployed model.
            poisoned = triggered[index]
            x[poisoned] = trigger(x[poisoned])
            return x

        model = copy.deepcopy(build.artifact.module)
        options = FitOptions(batch_transform=apply_trigger)
        fit(model, Split(train.x, labels), self.recipe, seed=seed, progress=progress, options=options)
        secret = self.secret()
        return build.then(self.name, build.artifact.with_module(model, planted=planted_tag(secret)), secret)

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        if not 0 < self.ratio <= 1:
            raise UnusableInput(f"expected a ratio in (0, 1], got {self.ratio}")
        super().check(split, num_classes)

    @final
    def choose_samples(self, split: Split, num_classes: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Choose the samples to poison.

        With ``sources``, as many samples of other classes get the trigger but keep their label. The model then learns
        to ignore the trigger on other classes. Some samples of the source classes stay clean.

        Args:
            split: Labeled training data of N samples.
            num_classes: Classes of the task.
            seed: Decides the choice.

        Returns:
            A mask (N,) of the samples with the trigger, and the labels (N,) int64 of all samples.
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
