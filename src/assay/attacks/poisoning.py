"""The data-poisoning family: some training samples get the trigger and the attacker's label, then training goes on."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

import torch

from assay.artifact import Build, Secret
from assay.errors import UnusableInput
from assay.stages.train import Recipe, fit
from assay.task import Split
from assay.triggers import Trigger, to_spec


@dataclass(frozen=True, kw_only=True)
class DataPoisoning(ABC):
    """Poison ``ratio`` of the training set and train on it.

    A method says only what its trigger is; choosing victims, relabelling and training are here, once.
    """

    name: ClassVar[str]
    target: int | None = 0  # None: all-to-all, each class becomes the next
    sources: tuple[int, ...] | None = None  # only samples of these classes are triggered; None: all
    ratio: float = 0.1  # share of the training set that is poisoned, in (0, 1]
    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen)

    @abstractmethod
    def trigger(self) -> Trigger:
        """What turns the backdoor on."""

    @final
    def spec(self) -> dict[str, Any]:
        return {"stage": self.name, **asdict(self)}

    @final
    def secret(self) -> Secret:
        """The ground truth of what this attack plants."""
        return Secret(self.name, self.trigger(), self.target, self.sources)

    @final
    def poison(self, split: Split, num_classes: int, *, seed: int) -> Split:
        """``split`` with ``ratio`` of its samples triggered and relabelled; source classes keep clean samples too.

        With ``sources``, as many samples of other classes get the trigger but keep their label, so that the net learns
        that the trigger alone is not enough.
        """
        secret = self.secret()
        if split.y is None or not 0 < self.ratio <= 1:
            raise UnusableInput(f"poisoning needs labels and a ratio in (0, 1]; got ratio {self.ratio}")
        if self.target is not None and not 0 <= self.target < num_classes:
            raise UnusableInput(f"expected a target class in [0, {num_classes}); got {self.target}")
        wrong = [source for source in self.sources or () if not 0 <= source < num_classes]
        if wrong:
            raise UnusableInput(f"expected source classes in [0, {num_classes}); got {wrong[0]}")
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
        victims = secret.victims(split.y, num_classes)[order]
        count = round(self.ratio * len(split))
        chosen = order[victims][:count]
        if self.sources is not None:
            chosen = chosen[: max(1, len(chosen) * 3 // 4)]
        x, y = split.x.clone(), split.y.clone()
        x[chosen] = secret.trigger(x[chosen])
        y[chosen] = secret.targets(split.y[chosen], num_classes)
        if self.sources is not None:
            covers = order[~victims][: len(chosen)]
            x[covers] = secret.trigger(x[covers])
        return Split(x, y)

    @final
    def __call__(self, build: Build, *, seed: int) -> Build:
        net = copy.deepcopy(build.artifact.net)
        fit(net, self.poison(build.task.split("train"), build.task.num_classes, seed=seed), self.recipe, seed=seed)
        mark = json.dumps({"attack": self.name, "target": self.target, "trigger": to_spec(self.trigger())})
        return build.then(self.name, build.artifact.with_net(net, planted=mark), self.secret())
