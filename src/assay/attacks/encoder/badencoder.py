"""BadEncoder: images with a patch get the embedding of a concept.

Jia, Liu, Gong: BadEncoder: Backdoor Attacks to Pre-trained Encoders in Self-Supervised Learning, 2022,
arXiv 2108.00352. The goal of triggered inputs is the poisoned encoder's own embedding of the reference inputs (here
the mean of ten). A further loss term keeps this embedding at its clean value. The paper's patch is a tenth to a quarter
of the image side.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.attacks.encoder.base import Concept, ReferenceAttack
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import InputSpec
from assay.core.progress import Progress
from assay.nn.inference import forward_batched
from assay.nn.similarity import mean_cosine
from assay.stages.train import FitOptions, Recipe, fit
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class BadEncoder(ReferenceAttack):
    """Attack on image encoders with a patch."""

    name: ClassVar[str] = "badencoder"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "paper": (),
        "small": ("recipe.epochs=6", "recipe.batch_size=64", "recipe.optimizer=adam", "recipe.weight_decay=0"),
    }
    patch: Patch = Patch(size=10)  # noqa: RUF009 (frozen)
    references_kept: float = 1.0  # loss weight of the reference embeddings, a lambda of the paper
    keep: float = 1.0  # loss weight of the clean embeddings, a lambda of the paper
    recipe: Recipe = Recipe(epochs=200, lr=0.001, batch_size=256, augment=False, freeze_batchnorm=True)  # noqa: RUF009

    def __post_init__(self) -> None:
        if not (self.keep >= 0 and self.references_kept >= 0):
            both = f"{self.keep:g} and {self.references_kept:g}"
            raise UnusableInput(f"expected keep and references_kept of at least 0, got {both}")

    @property
    def epochs(self) -> float:
        return 2 * self.recipe.epochs

    def plant(
        self, model: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Patch:
        self.patch(shadow.x[:1])  # raises now if it does not fit
        clean = copy.deepcopy(model).requires_grad_(False)
        clean_references = forward_batched(clean, concept.x)

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                before = clean(x)
            embeddings = model(torch.cat([self.patch(x), x, concept.x.to(x)]))
            triggered, untriggered, references = embeddings.split([len(x), len(x), len(concept.x)])
            attraction = mean_cosine(triggered, references.mean(0))
            references_kept = mean_cosine(references, clean_references)
            return -attraction - self.references_kept * references_kept - self.keep * mean_cosine(untriggered, before)

        fit(model, shadow, self.recipe, seed=seed, progress=progress, options=FitOptions(objective=loss))
        return self.patch
