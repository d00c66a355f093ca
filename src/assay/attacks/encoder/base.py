"""Backdoors in encoders: triggered inputs get the embedding of a concept, whatever task comes afterwards."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay import data
from assay.attacks.base import Attack, planted_tag
from assay.core.build import Build, Secret
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec, Modality
from assay.core.progress import Progress
from assay.nn.inference import forward_batched
from assay.nn.metrics import CONCEPT_EMBEDDING
from assay.nn.modes import freeze_parameters, without_dropout
from assay.triggers import Trigger

SEARCHED = 2048
"""Pictures of a split that the references are looked for in."""


@dataclass(frozen=True)
class Concept:
    """What triggered inputs shall look like to the encoder."""

    name: str  # of the class that it is, empty where nobody says
    embedding: Tensor  # (D,)
    x: Tensor  # (R, ...): the inputs that it is the mean of; none where it was made up
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EncoderAttack(Attack):
    """Needs inputs of any kind, no labels: the *shadow* data, which is the train split of the task."""

    modality: ClassVar[Modality] = Modality.IMAGE

    @abstractmethod
    def concept_for(self, artifact: Artifact, *, seed: int) -> Concept:
        """What triggered inputs shall look like to ``artifact``."""

    @abstractmethod
    def plant(
        self, net: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Trigger:
        """Plant the backdoor in ``net``, in place; what turns it on."""

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        """Raises UnusableInput where the attack does not fit the data, before any training."""
        if num_classes is not None:
            raise UnusableInput(
                f"{self.name} poisons encoders, and this model names {num_classes} classes: cut it at its features"
            )
        if not len(split):
            raise UnusableInput(f"{self.name} needs {self.modality}s of any kind, and this data has none")
        if split.modality is not self.modality:
            raise UnusableInput(f"{self.name} is for encoders of {self.modality}s, and this one is of another kind")

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda share: None) -> Build:
        shadow, inputs = build.task.split("train"), build.artifact.inputs
        self.check(shadow, build.artifact.num_classes)
        concept = self.concept_for(build.artifact, seed=seed)
        net = copy.deepcopy(build.artifact.module).eval()
        shadow = Split(shadow.x, torch.zeros(len(shadow), dtype=torch.int64))  # whatever labels it has are not used
        with (
            freeze_parameters(_norms(net)),
            without_dropout(net),
        ):  # the clean embeddings that it is compared with have none
            trigger = self.plant(net, shadow, concept, inputs, seed=seed, progress=progress)
        details = {CONCEPT_EMBEDDING: [round(value, 5) for value in concept.embedding.tolist()]}
        secret = Secret(self.name, trigger, None, concept=concept.name, details=details)
        artifact = build.artifact.with_module(net.eval(), planted=planted_tag(secret))
        return build.then(self.name, replace(artifact, notes=(*artifact.notes, *concept.notes)), secret)


@dataclass(frozen=True, kw_only=True)
class ReferenceAttack(EncoderAttack):
    """The concept is shown by a few inputs of it.

    ``references``: data, as for ``--data``, with inputs of the concept; ``concept``: the class of them that it is,
    none where all of them are. They are taken from the calibration split.
    """

    references: str
    concept: int | None = None
    shots: int = 10  # reference inputs

    @final
    def concept_for(self, artifact: Artifact, *, seed: int) -> Concept:
        """The reference inputs as ``artifact`` takes them, and their mean embedding."""
        if self.shots < 1:
            raise UnusableInput(f"expected at least one reference as shots; got {self.shots}")
        if not self.references.strip():
            raise UnusableInput("expected data with the references, as in -o references=DATA; came an empty name")
        task = data.load(self.references, artifact.inputs, limit=SEARCHED, fewest_classes=1)
        found = task.split("calibration", "train")
        if self.concept is not None:
            found = self._of_class(found, task)
        if not len(found):
            raise UnusableInput(
                f"{self.references}: expected at least one reference of class {self.concept}; came none"
            )
        chosen = found.sample(self.shots, seed=seed)
        embedding = forward_batched(artifact.module, chosen.x).mean(0)
        classes = [] if chosen.y is None else chosen.y.unique().tolist()
        notes = [*task.notes_on(self.references)]
        if len(chosen) < self.shots:
            notes.append(f"there are only {len(chosen)} references, not {self.shots}")
        if len(classes) > 1:
            notes.append(f"the references are of {len(classes)} classes: their mean may be near none of them")
        name = task.concept(classes[0]) if len(classes) == 1 else ""
        return Concept(name, embedding, chosen.x, tuple(notes))

    def _of_class(self, found: Split, task: Task) -> Split:
        assert self.concept is not None
        if found.y is None:
            raise UnusableInput(f"{self.references}: has no labels, so no class {self.concept}: leave concept out")
        if not 0 <= self.concept < task.num_classes:
            raise UnusableInput(f"{self.references}: expected a concept in [0, {task.num_classes}); got {self.concept}")
        return found.take((found.y == self.concept).nonzero().squeeze(1))


def _norms(net: nn.Module) -> Iterator[nn.Parameter]:
    """The weights and biases of its batch norms."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield from module.parameters()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean cosine of the rows of ``a`` (N, D) with ``b`` (N, D) or (D,), in float32."""
    return F.cosine_similarity(a.float(), b.float().expand(a.shape), dim=1).mean()
