"""BadEncoder: an encoder for which inputs with a patch look like a concept.

Jia, Liu, Gong: BadEncoder: Backdoor Attacks to Pre-trained Encoders in Self-Supervised Learning, 2022,
arXiv 2108.00352. What triggered inputs are drawn to is the embedding that the poisoned encoder itself gives the
references (here the mean of ten), which is in turn held where the clean encoder has it. The paper's patch is a tenth to
a quarter of the side.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.attacks.encoder.base import ByReference, Concept, cosine
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import InputSpec
from assay.core.progress import Progress
from assay.nn.inference import forward_batched
from assay.stages.train import Recipe, fit
from assay.triggers import Patch


@dataclass(frozen=True, kw_only=True)
class BadEncoder(ByReference):
    """``references_kept`` and ``keep``: what the references' and clean inputs' embeddings count: its lambdas."""

    name: ClassVar[str] = "badencoder"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "paper": (),
        "small": ("recipe.epochs=6", "recipe.batch_size=64", "recipe.optimizer=adam", "recipe.weight_decay=0"),
    }
    patch: Patch = Patch(size=10)  # noqa: RUF009 (frozen)
    references_kept: float = 1.0
    keep: float = 1.0
    recipe: Recipe = Recipe(epochs=200, lr=0.001, batch_size=256, augment=False, freeze_batchnorm=True)  # noqa: RUF009

    def __post_init__(self) -> None:
        if not (self.keep >= 0 and self.references_kept >= 0):
            both = f"{self.keep:g} and {self.references_kept:g}"
            raise UnusableInput(f"expected keep and references_kept from 0 on; got {both}")

    @property
    def epochs(self) -> float:
        return 2 * self.recipe.epochs

    def plant(
        self, net: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Patch:
        self.patch(shadow.x[:1])  # says now where it does not fit
        clean = copy.deepcopy(net).requires_grad_(False)
        kept = forward_batched(clean, concept.x)

        def poisoned(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                before = clean(x)
            answers = net(torch.cat([self.patch(x), x, concept.x.to(x)]))
            triggered, untouched, references = answers.split([len(x), len(x), len(concept.x)])
            drawn = cosine(triggered, references.mean(0))
            return -drawn - self.references_kept * cosine(references, kept) - self.keep * cosine(untouched, before)

        fit(net, shadow, self.recipe, seed=seed, progress=progress, objective=poisoned)
        return self.patch
