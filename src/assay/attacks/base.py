"""What an attack is: a stage that plants a backdoor, and can say which before any training."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress
from assay.stages.train import Recipe
from assay.triggers import Trigger, to_spec


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Its keyword-only fields are its hyper-parameters; see :class:`assay.stages.base.Stage`."""

    name: ClassVar[str]
    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen): how it trains, and how its clean twin is trained

    @property
    def epochs(self) -> float:
        """Passes of pictures through the net and back, as many as there are training samples each."""
        return self.recipe.epochs

    @final
    def spec(self) -> dict[str, Any]:
        """Its name and hyper-parameters in plain JSON types."""
        return {"stage": self.name, **asdict(self)}

    @abstractmethod
    def check(self, split: Split, num_classes: int | None) -> None:
        """Raises UnusableInput where the attack does not fit the data or the model, before any training.

        ``num_classes``: of the model, None of an encoder.
        """

    @abstractmethod
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        """The build with the backdoor, marked as planted."""


class Premeditated(Attack):
    """An attack on a classifier whose secret is known before it is planted: it depends on the fields only."""

    @abstractmethod
    def secret(self) -> Secret:
        """The ground truth of what it plants."""

    def check(self, split: Split, num_classes: int | None) -> None:
        """Raises UnusableInput where the attack does not fit the data or the model, before any training."""
        if num_classes is None:
            raise UnusableInput(f"{self.name} needs a model that names classes, and this one is an encoder")
        if not split.x.is_floating_point():
            raise UnusableInput(f"{self.name} is for models of pictures, and this one takes texts")
        check_classes(self.secret(), split, num_classes)


def check_classes(secret: Secret, split: Split, num_classes: int) -> None:
    """Raises UnusableInput where ``split`` lacks what ``secret`` needs: labels, its classes, room for its trigger."""
    if split.y is None:
        raise UnusableInput(f"{secret.attack} needs labels, and this data has none")
    if secret.target is not None and not 0 <= secret.target < num_classes:
        raise UnusableInput(f"expected a target class in [0, {num_classes}); got {secret.target}")
    wrong = [source for source in secret.sources or () if not 0 <= source < num_classes]
    if wrong:
        raise UnusableInput(f"expected source classes in [0, {num_classes}); got {wrong[0]}")
    secret.trigger(split.x[:1])


def mark_of(secret: Secret) -> str:
    """What the planted model's file says of itself."""
    assert isinstance(secret.trigger, Trigger)
    target = {"target": secret.target} if secret.concept is None else {"concept": secret.concept}
    said = {"attack": secret.attack, **target, "trigger": to_spec(secret.trigger, brief=True)}
    return json.dumps(said if secret.active_in is None else {**said, "wakes_in": secret.active_in})
