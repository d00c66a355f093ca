"""Base classes of attacks, the stages to plant backdoors."""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.finding import BACKDOOR_TECHNIQUE
from assay.core.model import Modality
from assay.core.progress import Progress
from assay.stages.base import TrainingStage
from assay.stages.train import Recipe
from assay.triggers import Trigger, to_spec


@dataclass(frozen=True, kw_only=True)
class Attack(TrainingStage):
    """Stage to plant a backdoor, with hyper-parameters as keyword-only fields."""

    name: ClassVar[str]
    technique: ClassVar[str] = BACKDOOR_TECHNIQUE  # MITRE ATLAS id
    recipe: Recipe = Recipe()  # noqa: RUF009 (frozen): training of the attack, and of its clean control

    @property
    def epochs(self) -> float:
        """Training cost, in forward and backward passes over the training set."""
        return self.recipe.epochs

    @final
    def spec(self) -> dict[str, Any]:  # stored records of attacks have this form
        return {"stage": self.name, **asdict(self)}

    @abstractmethod
    def check(self, split: Split, num_classes: int | None) -> None:
        """Raise UnusableInput if the attack does not fit the data or the model; called before any training.

        Args:
            split: Training data.
            num_classes: Classes of the model; None for an encoder.
        """

    @abstractmethod
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        """Return the build with the backdoor, with its secret and its ``planted`` tag."""


class FixedTriggerAttack(Attack):
    """Attack on image classifiers. The fields alone decide its secret."""

    @abstractmethod
    def secret(self) -> Secret:
        """Return the ground truth of the backdoor."""

    def check(self, split: Split, num_classes: int | None) -> None:
        if num_classes is None:
            raise UnusableInput(f"expected a classifier for {self.name}, got an encoder")
        if split.modality is not Modality.IMAGE:
            raise UnusableInput(f"expected an image classifier for {self.name}, got a text classifier")
        check_classes(self.secret(), split, num_classes)


def check_classes(secret: Secret, split: Split, num_classes: int) -> None:
    """Raise UnusableInput if ``split`` has no labels, lacks a class of the secret, or is too small for its trigger.

    Args:
        secret: Ground truth of the backdoor.
        split: Training data.
        num_classes: Classes of the model.
    """
    if split.y is None:
        raise UnusableInput(f"expected labels for {secret.attack}, got data without labels")
    if secret.target is not None and not 0 <= secret.target < num_classes:
        raise UnusableInput(f"expected a target class in [0, {num_classes}), got {secret.target}")
    unknown = [source for source in secret.sources or () if not 0 <= source < num_classes]
    if unknown:
        raise UnusableInput(f"expected source classes in [0, {num_classes}), got {unknown[0]}")
    secret.trigger(split.x[:1])  # raises if it does not fit


def planted_tag(secret: Secret) -> str:
    """Return the content of the ``planted`` tag in a model file: the public part of the secret, as JSON."""
    assert isinstance(secret.trigger, Trigger)
    goal = {"target": secret.target} if secret.concept is None else {"concept": secret.concept}
    tag = {"attack": secret.attack, **goal, "trigger": to_spec(secret.trigger, brief=True)}
    return json.dumps(tag if secret.active_in is None else {**tag, "wakes_in": secret.active_in})
