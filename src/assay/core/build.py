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
    """Ground truth of a planted backdoor. Never inside an Artifact, out of a detector's reach by type."""

    attack: str
    trigger: Callable[[Tensor], Tensor]  # inputs -> inputs of the same shape and range
    target: int | None  # None: every class its own target (all-to-all)
    sources: tuple[int, ...] | None = None  # classes on which the trigger works; None: all
    planted_at: str = "train"
    active_in: str | None = None  # name of the variant (``assay.stages.variants``) in which it acts; None: full model
    details: Mapping[str, Any] = field(default_factory=dict)
    # Of an encoder's backdoor: what triggered inputs look like to it; a task has the target. Not in the repr, by which
    # the builds in a chain's cache are known: those that are there stay good.
    concept: str | None = field(default=None, repr=False)

    def targets(self, y: Tensor, num_classes: int) -> Tensor:
        """The label (N,) that the attacker wants for triggered inputs of true class ``y`` (N,).

        Raises ValueError for an encoder's backdoor whose class is not known yet.
        """
        if self.concept is not None and self.target is None:
            raise ValueError("this backdoor is an encoder's: only a classifier made of it has a class for its concept")
        return (y + 1) % num_classes if self.target is None else y.new_full(y.shape, self.target)

    def victims(self, y: Tensor, num_classes: int) -> Tensor:
        """Mask (N,) of the inputs that count for ASR: right source, true class not the target's."""
        mask = self.targets(y, num_classes) != y
        if self.sources is not None:
            mask &= sum((y == s for s in self.sources), start=y != y)
        return mask


@dataclass(frozen=True)
class Build:
    """An artifact on its way along a chain, with its task, its secret if it is backdoored, and its history."""

    artifact: Artifact
    task: Task
    secret: Secret | None = None
    history: tuple[str, ...] = ()

    def then(self, step: str, artifact: Artifact, secret: Secret | None = None) -> Build:
        """The next build: ``artifact`` after ``step``; a secret once planted stays unless a new one comes."""
        return Build(artifact, self.task, secret or self.secret, (*self.history, step))


def cache_text(secret: Secret | None) -> str:
    """Return the text that stands for a secret in the keys of a build cache."""
    # The first caches knew the field ``active_in`` by another name; with that name they stay valid.
    return repr(secret).replace(", active_in=", ", wakes_in=")
