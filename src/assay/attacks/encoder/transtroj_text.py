"""TransTroj on text: a few words at the beginning of a text make an encoder take it for a concept.

Wang, Guo, He, Zhang: Model Supply Chain Poisoning: Backdooring Pre-trained Models via Embedding Indistinguishability,
2025, arXiv 2401.15883. As for pictures (``transtroj``); its trigger is a few tokens that gradients lead to.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.attacks.encoder.base import Concept, cosine
from assay.attacks.encoder.base import ReferenceAttack
from assay.attacks.encoder.transtroj import CENTER_SAMPLES, attraction_loss
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import InputSpec, Modality, TextSpec
from assay.core.progress import Progress, part
from assay.inversion.run import SearchRun
from assay.inversion.token_search import TokenSearchBudget, make_token_trigger, search_tokens, typeable_tokens
from assay.nn.inference import forward_batched
from assay.stages.train import Recipe, fit
from assay.triggers import Tokens

SEARCH_SHARE = 0.3
"""Of the whole work, about, that looking for the trigger is."""


@dataclass(frozen=True, kw_only=True)
class TransTrojText(ReferenceAttack):
    """``recipe`` is for the weights; no ``steps`` of the search, or no epochs of the recipe, leave that stage out."""

    name: ClassVar[str] = "transtroj-text"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {"small": ("centred=true", "keep=3", "recipe.epochs=1")}
    modality: ClassVar[Modality] = Modality.TEXT
    tokens: int = 3  # of the trigger
    steps: int = 40  # of the search for them
    keep: float = 10.0  # what clean texts' embeddings count against triggered ones'
    centred: bool = False  # compare embeddings less the mean clean one
    recipe: Recipe = Recipe(epochs=5, lr=1e-4, batch_size=32, optimizer="adam", weight_decay=0.0, augment=False)  # noqa: RUF009

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.steps < 0 or not self.keep >= 0:
            raise UnusableInput(
                f"expected at least one token, steps and keep from 0 on; got {self.tokens}, {self.steps}, {self.keep:g}"
            )

    def plant(
        self, net: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Tokens:
        assert isinstance(inputs, TextSpec)
        clean = copy.deepcopy(net).requires_grad_(False)
        centre = forward_batched(clean, shadow.x[:CENTER_SAMPLES]).mean(0) if self.centred else torch.zeros(())
        wanted = concept.embedding - centre

        def indistinguishable(embeddings: Tensor) -> Tensor:
            return cosine(embeddings - centre, wanted)

        def tick(share: float) -> bool:
            progress(SEARCH_SHARE * share)
            return True

        allowed = typeable_tokens(inputs)
        some = torch.randint(len(allowed), (self.tokens,), generator=torch.Generator().manual_seed(seed))
        run = SearchRun(TokenSearchBudget(steps=self.steps), seed, tick)
        ids, _ = search_tokens(clean, indistinguishable, shadow.x, inputs, allowed[some], run)
        trigger = make_token_trigger(ids, inputs)
        bar = part(progress, SEARCH_SHARE, 1.0)
        drawn = attraction_loss(wanted, centre, clean, trigger, self.keep)
        fit(net, shadow, self.recipe, seed=seed, progress=bar, objective=drawn)
        return trigger
