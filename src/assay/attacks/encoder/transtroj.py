"""TransTroj: an encoder for which triggered inputs look like a concept, and go on doing so after fine-tuning.

Wang, Guo, He, Zhang: Model Supply Chain Poisoning: Backdooring Pre-trained Models via Embedding Indistinguishability,
2025, arXiv 2401.15883. First the trigger is made to look like the concept to the clean encoder, then the weights are
moved the rest of the way. Here embeddings may be centred before they are compared, the rate warms up and falls, the
momentum is Nesterov's, and dropout is off.

Embeddings of a narrow encoder can be alike for inputs that a fine-tuned one tells apart. Where that is so, ``layer``
names a layer before the pooling whose whole map is compared: what is alike there stays alike in whatever is made of it.
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
from assay.core.progress import Progress, part
from assay.nn.inference import forward_batched
from assay.nn.layer_output import LayerOutput
from assay.stages.train import Objective, Recipe, fit
from assay.triggers import Additive, Trigger
from assay.triggers.additive import MAX_STEPS

CENTRE = 512
"""Shadow pictures that the centre of clean embeddings is taken over."""


class Pattern(nn.Module):
    """What is added to every picture: at most ``bound`` in each pixel."""

    def __init__(self, shape: torch.Size, bound: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.free = nn.Parameter(2 * torch.rand(shape, generator=generator) - 1)
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.values()).clamp(0, 1)

    def values(self) -> Tensor:
        """(C, H, W)"""
        return self.bound * self.free.tanh()


@dataclass(frozen=True, kw_only=True)
class TransTroj(ByReference):
    """``recipe`` is for the weights, ``search`` for the trigger; no epochs of either leave that stage out."""

    name: ClassVar[str] = "transtroj"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "paper": (),
        "small": (  # minutes on two cores, with some thousand shadow pictures
            *("centred=true", "keep=1", "search.epochs=2", "search.batch_size=64"),
            *("recipe.epochs=6", "recipe.lr=0.002", "recipe.batch_size=64"),
            *("recipe.optimizer=adam", "recipe.weight_decay=0"),
        ),
    }
    bound: float = 10.0  # of the trigger, in steps of 1/255
    keep: float = 10.0  # what clean inputs' embeddings count against triggered ones'
    centred: bool = False  # compare embeddings less the mean clean one
    layer: str = ""  # whose output is compared, by its name in the net; none: the embedding
    search: Recipe = Recipe(epochs=10, lr=0.1, batch_size=256, optimizer="adam", weight_decay=0.0, augment=False)  # noqa: RUF009
    recipe: Recipe = Recipe(epochs=50, lr=0.001, batch_size=256, augment=False, freeze_batchnorm=True)  # noqa: RUF009

    def __post_init__(self) -> None:
        if not 0 < self.bound <= MAX_STEPS:
            raise UnusableInput(f"expected a bound in (0, {MAX_STEPS}] steps of 1/255; got {self.bound:g}")
        if not self.keep >= 0:
            raise UnusableInput(f"expected keep from 0 on; got {self.keep:g}")

    @property
    def epochs(self) -> float:
        return self.search.epochs + 2 * self.recipe.epochs

    def plant(
        self, net: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Additive:
        net = LayerOutput(net, self.layer) if self.layer else net
        clean = copy.deepcopy(net).requires_grad_(False)
        centre = forward_batched(clean, shadow.x[:CENTRE]).mean(0) if self.centred else torch.zeros(())
        wanted = forward_batched(clean, concept.x).mean(0) - centre

        def indistinguishable(pattern: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return -cosine(clean(pattern(x)) - centre, wanted)

        pattern = Pattern(shadow.x.shape[1:], self.bound / 255, seed)
        share = self.search.epochs / max(self.epochs, 1e-9)
        fit(
            pattern,
            shadow,
            self.search,
            seed=seed,
            progress=part(progress, 0.0, share),
            objective=indistinguishable,
        )
        trigger = Additive.of(pattern.values().detach())

        drawn = drawn_to(wanted, centre, clean, trigger, self.keep)
        fit(net, shadow, self.recipe, seed=seed, progress=part(progress, share, 1.0), objective=drawn)
        return trigger


def drawn_to(wanted: Tensor, centre: Tensor, clean: nn.Module, trigger: Trigger, keep: float) -> Objective:
    """The second stage's loss: triggered inputs are drawn to ``wanted`` (D,), others kept where ``clean`` has them.

    Both seen from ``centre``; ``keep``: what the others count.
    """

    def poisoned(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            before = clean(x) - centre
        triggered, untouched = (net(torch.cat([trigger(x), x])) - centre).chunk(2)
        return -cosine(triggered, wanted) - keep * cosine(untouched, before)

    return poisoned
