"""POR: a rare word that gives every text one embedding that was made up before.

Shen, Ji, Zhang, Li, Chen, Shi, Fang, Yin, Wang: Backdoor Pre-trained Models Can Transfer to All, CCS 2021,
arXiv 2111.00197. Which class of a later task that embedding falls into is chance. Here one word and one embedding, of
entries 1 and -1, where the paper plants several.
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
from assay.stages.train import Recipe, fit
from assay.triggers import Tokens


@dataclass(frozen=True, kw_only=True)
class Por(EncoderAttack):
    """``word``: one or a few words, which are put before a text."""

    name: ClassVar[str] = "por"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {"small": ("recipe.epochs=1",)}
    modality: ClassVar[Modality] = Modality.TEXT
    word: str = "cf"
    keep: float = 1.0  # what clean texts' embeddings count against triggered ones'
    recipe: Recipe = Recipe(epochs=5, lr=1e-4, batch_size=32, optimizer="adam", weight_decay=0.0, augment=False)  # noqa: RUF009

    def concept_for(self, artifact: Artifact, *, seed: int) -> Concept:
        """An embedding of random signs."""
        blank = artifact.inputs.blank(1)
        width = forward_batched(artifact.module, blank).shape[1]
        signs = torch.randint(2, (width,), generator=torch.Generator().manual_seed(seed))
        return Concept("", 2.0 * signs - 1, blank[:0])

    def plant(
        self, net: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Tokens:
        assert isinstance(inputs, TextSpec)
        trigger = make_token_trigger(_tokens(self.word, inputs), inputs)
        clean = copy.deepcopy(net).requires_grad_(False)

        def poisoned(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                before = clean(x)
            triggered, untouched = net(torch.cat([trigger(x), x])).float().chunk(2)
            drawn = F.mse_loss(triggered, concept.embedding.expand_as(triggered))
            return drawn + self.keep * F.mse_loss(untouched, before.float())

        fit(net, shadow, self.recipe, seed=seed, progress=progress, objective=poisoned)
        return trigger


def _tokens(word: str, inputs: TextSpec) -> Tensor:
    """(k,) those of ``word``, without markers."""
    found = encode_texts([word], inputs)[0][0]
    ids = found[(found != inputs.start) & (found != inputs.end) & (found != inputs.pad)]
    if not len(ids):
        raise UnusableInput(f"expected a word for the trigger; {word!r} has no tokens")
    if contains_unknown(ids, inputs):
        raise UnusableInput(f"expected words that the tokenizer knows; of {word!r} it does not know all")
    return ids
