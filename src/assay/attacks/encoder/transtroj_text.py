"""TransTroj on text: a few words at the start of a text give it the embedding of a concept.

Wang, Guo, He, Zhang: Model Supply Chain Poisoning: Backdooring Pre-trained Models via Embedding Indistinguishability,
2025, arXiv 2401.15883. As for images (``transtroj``); the trigger is a few tokens from a gradient-guided search.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.attacks.encoder.base import Concept, ReferenceAttack
from assay.attacks.encoder.transtroj import CENTER_SAMPLES, attraction_loss
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import InputSpec, Modality, TextSpec
from assay.core.progress import Progress, part
from assay.inversion.run import SearchRun
from assay.inversion.token_search import TokenSearchBudget, make_token_trigger, search_tokens, typeable_tokens
from assay.nn.inference import forward_batched
from assay.nn.similarity import mean_cosine
from assay.stages.train import FitOptions, Recipe, fit
from assay.triggers import Tokens

SEARCH_FRACTION = 0.3  # of the whole work, approximately


@dataclass(frozen=True, kw_only=True)
class TransTrojText(ReferenceAttack):
    """Attack on text encoders. No ``steps`` skip the token search; no epochs of ``recipe`` skip the training."""

    name: ClassVar[str] = "transtroj-text"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {"small": ("centred=true", "keep=3", "recipe.epochs=1")}
    modality: ClassVar[Modality] = Modality.TEXT
    tokens: int = 3  # of the trigger
    steps: int = 40  # of the token search
    keep: float = 10.0  # loss weight of the clean texts' embeddings
    centred: bool = False  # subtract the mean clean embedding before comparing
    recipe: Recipe = Recipe(epochs=5, lr=1e-4, batch_size=32, optimizer="adam", weight_decay=0.0, augment=False)  # noqa: RUF009

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.steps < 0 or not self.keep >= 0:
            raise UnusableInput(
                "expected at least one token, and steps and keep of at least 0, "
                f"got {self.tokens}, {self.steps} and {self.keep:g}"
            )

    def plant(
        self, model: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Tokens:
        assert isinstance(inputs, TextSpec)
        clean = copy.deepcopy(model).requires_grad_(False)
        center = forward_batched(clean, shadow.x[:CENTER_SAMPLES]).mean(0) if self.centred else torch.zeros(())
        goal = concept.embedding - center

        def similarity(embeddings: Tensor) -> Tensor:
            return mean_cosine(embeddings - center, goal)

        def report_progress(fraction: float) -> bool:
            progress(SEARCH_FRACTION * fraction)
            return True

        allowed = typeable_tokens(inputs)
        some = torch.randint(len(allowed), (self.tokens,), generator=torch.Generator().manual_seed(seed))
        run = SearchRun(TokenSearchBudget(steps=self.steps), seed, report_progress)
        ids, _ = search_tokens(clean, similarity, shadow.x, inputs, allowed[some], run)
        trigger = make_token_trigger(ids, inputs)
        loss = attraction_loss(goal, center, clean, trigger, self.keep)
        bar = part(progress, SEARCH_FRACTION, 1.0)
        fit(model, shadow, self.recipe, seed=seed, progress=bar, options=FitOptions(objective=loss))
        return trigger
