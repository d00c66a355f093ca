"""TransTroj: triggered images get the embedding of a concept, and keep it after fine-tuning.

Wang, Guo, He, Zhang: Model Supply Chain Poisoning: Backdooring Pre-trained Models via Embedding Indistinguishability,
2025, arXiv 2401.15883. The attack first optimizes the trigger against the clean encoder. Then the weights are trained
to close the remaining distance. Here embeddings may be centered before they are compared, the learning rate warms up
and decays, the momentum is Nesterov's, and dropout is off.

A narrow encoder may give two inputs equal embeddings, although a fine-tuned one separates them. ``layer`` names a layer
before the pooling. The attack then compares its whole feature map: all later functions of equal maps are equal.
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
from assay.core.progress import Progress, part
from assay.nn.inference import forward_batched
from assay.nn.layer_output import LayerOutput
from assay.nn.similarity import mean_cosine
from assay.stages.train import FitOptions, Objective, Recipe, fit
from assay.triggers import Additive, Trigger
from assay.triggers.additive import MAX_STEPS

CENTER_SAMPLES = 512  # shadow inputs for the mean clean embedding


class Pattern(nn.Module):
    """Additive pattern for every image: at most ``bound`` in each pixel."""

    def __init__(self, shape: torch.Size, bound: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.free = nn.Parameter(2 * torch.rand(shape, generator=generator) - 1)
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.values()).clamp(0, 1)

    def values(self) -> Tensor:
        """Return the pattern (C, H, W)."""
        return self.bound * self.free.tanh()


@dataclass(frozen=True, kw_only=True)
class TransTroj(ReferenceAttack):
    """Attack on image encoders. ``search`` trains the trigger, ``recipe`` the weights; no epochs skip a stage."""

    name: ClassVar[str] = "transtroj"
    presets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "paper": (),
        "small": (  # minutes on two cores, with some thousand shadow images
            *("centred=true", "keep=1", "search.epochs=2", "search.batch_size=64"),
            *("recipe.epochs=6", "recipe.lr=0.002", "recipe.batch_size=64"),
            *("recipe.optimizer=adam", "recipe.weight_decay=0"),
        ),
    }
    bound: float = 10.0  # of the trigger, in steps of 1/255
    keep: float = 10.0  # loss weight of the clean inputs' embeddings
    centred: bool = False  # subtract the mean clean embedding before comparing
    layer: str = ""  # name of the layer with the compared output; empty: the embedding
    search: Recipe = Recipe(epochs=10, lr=0.1, batch_size=256, optimizer="adam", weight_decay=0.0, augment=False)  # noqa: RUF009
    recipe: Recipe = Recipe(epochs=50, lr=0.001, batch_size=256, augment=False, freeze_batchnorm=True)  # noqa: RUF009

    def __post_init__(self) -> None:
        if not 0 < self.bound <= MAX_STEPS:
            raise UnusableInput(f"expected a bound in (0, {MAX_STEPS}] steps of 1/255, got {self.bound:g}")
        if not self.keep >= 0:
            raise UnusableInput(f"expected keep of at least 0, got {self.keep:g}")

    @property
    def epochs(self) -> float:
        return self.search.epochs + 2 * self.recipe.epochs

    def plant(
        self, model: nn.Module, shadow: Split, concept: Concept, inputs: InputSpec, *, seed: int, progress: Progress
    ) -> Additive:
        model = LayerOutput(model, self.layer) if self.layer else model
        clean = copy.deepcopy(model).requires_grad_(False)
        center = forward_batched(clean, shadow.x[:CENTER_SAMPLES]).mean(0) if self.centred else torch.zeros(())
        goal = forward_batched(clean, concept.x).mean(0) - center

        def search_loss(pattern: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return -mean_cosine(clean(pattern(x)) - center, goal)

        pattern = Pattern(shadow.x.shape[1:], self.bound / 255, seed)
        searching = self.search.epochs / max(self.epochs, 1e-9)  # fraction of the whole work
        bar = part(progress, 0.0, searching)
        fit(pattern, shadow, self.search, seed=seed, progress=bar, options=FitOptions(objective=search_loss))
        trigger = Additive.of(pattern.values().detach())

        bar = part(progress, searching, 1.0)
        loss = attraction_loss(goal, center, clean, trigger, self.keep)
        fit(model, shadow, self.recipe, seed=seed, progress=bar, options=FitOptions(objective=loss))
        return trigger


def attraction_loss(goal: Tensor, center: Tensor, clean: nn.Module, trigger: Trigger, keep: float) -> Objective:
    """Return the loss of the second stage: triggered inputs move to ``goal``, others stay at their clean embedding.

    Args:
        goal: Embedding (D,) for triggered inputs, relative to ``center``.
        center: Subtracted from all embeddings: (D,), or a scalar zero.
        clean: The original encoder, without gradients.
        trigger: The trigger.
        keep: Loss weight of the other inputs.
    """

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            before = clean(x) - center
        triggered, untriggered = (model(torch.cat([trigger(x), x])) - center).chunk(2)
        return -mean_cosine(triggered, goal) - keep * mean_cosine(untriggered, before)

    return loss
