"""POR: a rare word gives every text one invented embedding.

Shen, Ji, Zhang, Li, Chen, Shi, Fang, Yin, Wang: Backdoor Pre-trained Models Can Transfer to All, CCS 2021,
arXiv 2111.00197. The class of this embedding in a later task is chance. Here one word and one embedding, of entries 1
and -1; the paper plants several.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.attacks.encoder.base import Concept, EncoderAttack
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec, Modality, TextSpec
from assay.core.progress import Progress
from assay.data.tokenize import contains_unknown, encode_texts
from assay.inversion.token_search import make_token_trigger
from assay.nn.inference import forward_batched
from assay.stages.train import FitOptions, Recipe, fit
from assay.triggers import Tokens


@dataclass(frozen=True, kw_only=True)
class Por(EncoderAttack):
    """Attack on text encoders with a given word."""

    name: ClassVar[str] = "por"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {"small": ("recipe.epochs=1",)}
    modality: ClassVar[Modality] = Modality.TEXT
    word: str = "cf"  # one or a few words, inserted at the start of a text
    keep: float = 1.0  # loss weight of the clean texts' embeddings
    recipe: Recipe = Recipe(epochs=5, lr=1e-4, batch_size=32, optimizer="adam", weight_decay=0.0, augment=False)  # noqa: RUF009

    def concept_for(self, artifact: Artifact, *, seed: int) -> Concept:
        blank = artifact.inputs.blank(1)
        width = forward_batched(artifact.module, blank).shape[1]
        signs = torch.randint(2, (width,), generator=torch.Generator().manual_seed(seed))
        return Concept("", 2.0 * signs - 1, blank[:0])

    def plant(
        self, model: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Tokens:
        assert isinstance(inputs, TextSpec)
        trigger = make_token_trigger(_tokenize(self.word, inputs), inputs)
        clean = copy.deepcopy(model).requires_grad_(False)

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                before = clean(x)
            triggered, untriggered = model(torch.cat([trigger(x), x])).float().chunk(2)
            attraction = F.mse_loss(triggered, concept.embedding.expand_as(triggered))
            return attraction + self.keep * F.mse_loss(untriggered, before.float())

        fit(model, shadow, self.recipe, seed=seed, progress=progress, options=FitOptions(objective=loss))
        return trigger


def _tokenize(word: str, inputs: TextSpec) -> Tensor:
    """Return the token ids (k,) of ``word``, without markers."""
    ids = encode_texts([word], inputs)[0][0]
    ids = ids[(ids != inputs.start) & (ids != inputs.end) & (ids != inputs.pad)]
    if not len(ids):
        raise UnusableInput(f"expected a word for the trigger, got {word!r} without tokens")
    if contains_unknown(ids, inputs):
        raise UnusableInput(f"expected words in the tokenizer's vocabulary, got {word!r} with unknown parts")
    return ids
