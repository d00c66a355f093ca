"""Base classes of attacks on encoders: triggered inputs get the embedding of a concept, for every later task."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from assay import data
from assay.attacks.base import Attack, planted_tag
from assay.core.build import Build, Secret
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec, Modality
from assay.core.progress import Progress
from assay.nn.batchnorm import batch_norms
from assay.nn.inference import forward_batched
from assay.nn.metrics import CONCEPT_EMBEDDING
from assay.nn.modes import freeze_parameters, without_dropout
from assay.triggers import Trigger

REFERENCE_POOL = 2048  # samples per split among which reference inputs are chosen


@dataclass(frozen=True)
class Concept:
    """The goal of an attack on an encoder: triggered inputs get this embedding."""

    name: str  # class name; empty if unknown
    embedding: Tensor  # (D,)
    x: Tensor  # reference inputs (R, ...) with this mean embedding; empty for an invented embedding
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EncoderAttack(Attack):
    """Attack on an encoder, trained on unlabeled *shadow* data: the training split of the task."""

    modality: ClassVar[Modality] = Modality.IMAGE

    @abstractmethod
    def concept_for(self, artifact: Artifact, *, seed: int) -> Concept:
        """Return the target concept of triggered inputs for ``artifact``."""

    @abstractmethod
    def plant(
        self, model: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Trigger:
        """Plant the backdoor in place.

        Args:
            model: A copy of the encoder in eval mode, without dropout, with frozen batch-norm parameters.
            shadow: Training inputs; the labels are zeros without meaning.
            concept: The embedding for triggered inputs.
            inputs: Input specification of the encoder.
            seed: Decides every random choice.
            progress: Receives the completed fraction, in [0, 1].

        Returns:
            The trigger.
        """

    @final
    def check(self, split: Split, num_classes: int | None) -> None:
        if num_classes is not None:
            raise UnusableInput(
                f"expected an encoder for {self.name}, got a classifier with {num_classes} classes. "
                "Fix: load it as a feature extractor"
            )
        if not len(split):
            raise UnusableInput(f"expected {self.modality}s for {self.name}, got no data")
        if split.modality is not self.modality:
            raise UnusableInput(f"expected an encoder of {self.modality}s for {self.name}, got another modality")

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        shadow, inputs = build.task.split("train"), build.artifact.inputs
        self.check(shadow, build.artifact.num_classes)
        concept = self.concept_for(build.artifact, seed=seed)
        model = copy.deepcopy(build.artifact.module).eval()
        unlabelled = Split(shadow.x, torch.zeros(len(shadow), dtype=torch.int64))
        norms = batch_norms(model)
        norm_parameters = (parameter for norm in norms for parameter in norm.parameters())
        # No dropout: the clean embeddings in the loss are computed without it.
        with freeze_parameters(norm_parameters), without_dropout(model):
            trigger = self.plant(model, unlabelled, concept, inputs, seed=seed, progress=progress)
        details = {CONCEPT_EMBEDDING: [round(value, 5) for value in concept.embedding.tolist()]}
        secret = Secret(self.name, trigger, None, concept=concept.name, details=details)
        artifact = build.artifact.with_module(model.eval(), planted=planted_tag(secret))
        return build.then(self.name, replace(artifact, notes=(*artifact.notes, *concept.notes)), secret)


@dataclass(frozen=True, kw_only=True)
class ReferenceAttack(EncoderAttack):
    """An attack with a concept given by reference inputs, from the calibration split of other data."""

    references: str  # data with inputs of the concept, as :func:`assay.data.load` takes it
    concept: int | None = None  # class of the reference inputs; None: any
    shots: int = 10  # number of reference inputs

    @final
    def concept_for(self, artifact: Artifact, *, seed: int) -> Concept:
        if self.shots < 1:
            raise UnusableInput(f"expected at least one reference as shots, got {self.shots}")
        if not self.references.strip():
            raise UnusableInput("expected data with reference inputs, got an empty name. Fix: set references=DATA")
        task = data.load(self.references, artifact.inputs, limit=REFERENCE_POOL, fewest_classes=1)
        pool = task.split("calibration", "train")
        if self.concept is not None:
            pool = self._of_class(self.concept, pool, task)
        if not len(pool):
            raise UnusableInput(f"{self.references}: expected at least one reference of class {self.concept}, got none")
        chosen = pool.sample(self.shots, seed=seed)
        embedding = forward_batched(artifact.module, chosen.x).mean(0)
        classes = [] if chosen.y is None else chosen.y.unique().tolist()
        notes = [*task.notes_on(self.references)]
        if len(chosen) < self.shots:
            notes.append(f"there are only {len(chosen)} references, not {self.shots}")
        if len(classes) > 1:
            notes.append(f"the references are of {len(classes)} classes: their mean may be near none of them")
        name = task.concept(classes[0]) if len(classes) == 1 else ""
        return Concept(name, embedding, chosen.x, tuple(notes))

    def _of_class(self, concept: int, pool: Split, task: Task) -> Split:
        if pool.y is None:
            raise UnusableInput(
                f"{self.references}: expected labels to find class {concept}, got none. Fix: leave concept out"
            )
        if not 0 <= concept < task.num_classes:
            raise UnusableInput(f"{self.references}: expected a concept in [0, {task.num_classes}), got {concept}")
        return pool.take((pool.y == concept).nonzero().squeeze(1))
