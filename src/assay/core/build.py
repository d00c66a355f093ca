"""Build and Secret: a model on its way along a chain, and the ground truth of its backdoor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from assay.core.dataset import Task
from assay.core.model import Artifact


@dataclass(frozen=True)
class Secret:
    """Ground truth of a planted backdoor. An Artifact never holds one, so that no detector can read it."""

    attack: str
    trigger: Callable[[Tensor], Tensor]  # inputs -> inputs of the same shape and range
    target: int | None  # None: each class has its own target (all-to-all)
    sources: tuple[int, ...] | None = None  # classes on which the trigger works; None: all
    planted_at: str = "train"
    active_in: str | None = None  # variant (``assay.stages.variants``) with an active backdoor; None: the full model
    details: Mapping[str, Any] = field(default_factory=dict)
    # Name of the class that an encoder gives to triggered inputs; a downstream task has its number as target.
    # It is not in the repr, because caches identify builds by that text.
    concept: str | None = field(default=None, repr=False)

    def targets(self, y: Tensor, num_classes: int) -> Tensor:
        """Return the attacker's label (N,) for triggered inputs.

        Args:
            y: True classes (N,).
            num_classes: Number of the model's classes.

        Raises:
            ValueError: The backdoor is an encoder's, and its class is not known yet.
        """
        if self.concept is not None and self.target is None:
            raise ValueError("expected a classifier for the target class; this backdoor is in an encoder")
        return (y + 1) % num_classes if self.target is None else y.new_full(y.shape, self.target)

    def victims(self, y: Tensor, num_classes: int) -> Tensor:
        """Return a mask (N,) of the inputs counted in the attack success rate.

        Victims have a source class, and a true class other than the target.

        Args:
            y: True classes (N,).
            num_classes: Number of the model's classes.
        """
        mask = self.targets(y, num_classes) != y
        if self.sources is not None:
            mask &= sum((y == s for s in self.sources), start=y != y)
        return mask


@dataclass(frozen=True)
class Build:
    """An artifact on its way along a chain, with its task, its history, and its secret if it is backdoored."""

    artifact: Artifact
    task: Task
    secret: Secret | None = None
    history: tuple[str, ...] = ()

    def then(self, step: str, artifact: Artifact, secret: Secret | None = None) -> Build:
        """Return the next build.

        Args:
            step: Name of the step, for the history.
            artifact: The model after the step.
            secret: A new secret; None keeps the present one.
        """
        return Build(artifact, self.task, secret or self.secret, (*self.history, step))


def cache_text(secret: Secret | None) -> str:
    """Return a secret as text for the keys of a build cache."""
    # The first caches knew the field ``active_in`` by another name; with that name they stay valid.
    return repr(secret).replace(", active_in=", ", wakes_in=")
