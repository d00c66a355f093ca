"""Modules around transformers models, with logits or embeddings as their one output."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.model import ARCH_KEY
from assay.formats.huggingface.pooling import Pooling
from assay.nn.saving import SavedWrapper

ARCH = "huggingface"  # ``assay.arch`` of a safetensors file that assay wrote from a transformers model
# Metadata keys of such a file.
CONFIG_KEY = "assay.config"
FLIP_KEY = "assay.flip_channels"
POOLING_KEY = "assay.pooling"


def config_json(model: nn.Module, num_classes: int | None = None) -> str:
    """Return a transformers model's config as JSON.

    Args:
        model: The transformers model.
        num_classes: Number of classes, if it differs from the config. None: the config's own.
    """
    config: Any = copy.deepcopy(model.config)
    if num_classes not in (None, config.num_labels):
        config.num_labels = num_classes
    config.architectures = [type(model).__name__]
    return config.to_json_string(use_diff=True)


class TransformersWrapper(nn.Module):
    """A transformers model with one tensor as output."""

    model: nn.Module

    def settings(self) -> dict[str, str]:
        """Return the metadata of this wrapper in a model file, apart from the model's config."""
        return {}

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        """Return the transformers model, with its config and the wrapper's settings as metadata."""
        config = {ARCH_KEY: ARCH, CONFIG_KEY: config_json(self.model, num_classes)}
        return SavedWrapper(self.model, config | self.settings())


class Logits(TransformersWrapper):
    """A classifier: normalized images (N, C, H, W) -> logits (N, K)."""

    def __init__(self, model: nn.Module, *, flip: bool = False) -> None:
        super().__init__()
        self.model = model
        self.flip = flip  # the model takes BGR

    def settings(self) -> dict[str, str]:
        """Return the order of the channels."""
        return {FLIP_KEY: str(int(self.flip))}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of normalized images."""
        return self.model(pixel_values=x.flip(1) if self.flip else x).logits


class Embeddings(TransformersWrapper):
    """An encoder: normalized images (N, C, H, W) -> embeddings (N, D)."""

    def __init__(self, model: nn.Module, pooling: Pooling, *, flip: bool = False) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.flip = flip  # the model takes BGR

    def extra_repr(self) -> str:
        """Return the settings outside the weights, so that different encoders have different texts."""
        return f"pooling={self.pooling}, flip={self.flip}"

    def settings(self) -> dict[str, str]:
        """Return the order of the channels and the pooling."""
        return {FLIP_KEY: str(int(self.flip)), POOLING_KEY: self.pooling}

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings (N, D) of normalized images."""
        output = self.model(pixel_values=x.flip(1) if self.flip else x)
        if self.pooling == "pooler":
            return output.pooler_output.flatten(1)
        states = output.last_hidden_state
        if states.ndim == 4:  # (N, D, H, W)
            return states.mean((2, 3))
        return states[:, 0] if self.pooling == "cls" else states.mean(1)


class TextWrapper(TransformersWrapper):
    """A text model that processes a batch only up to the end of its longest text."""

    def __init__(self, model: nn.Module, pad: int) -> None:
        super().__init__()
        self.model = model
        self.pad = pad

    def run_model(self, tokens: Tensor) -> tuple[Any, Tensor]:
        """Return the output of the transformers model, and a mask (N, T) of the tokens without padding."""
        if not torch.compiler.is_exporting():
            tokens = tokens[:, : max(1, int((tokens != self.pad).sum(1).max()))]
        mask = (tokens != self.pad).long()
        return self.model(input_ids=tokens, attention_mask=mask), mask


class TextLogits(TextWrapper):
    """A text classifier: token numbers (N, L) -> logits (N, K)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (N, K) of texts."""
        return self.run_model(tokens)[0].logits


class TextEmbeddings(TextWrapper):
    """A text encoder: token numbers (N, L) -> embeddings (N, D)."""

    def __init__(self, model: nn.Module, pad: int, pooling: Pooling) -> None:
        super().__init__(model, pad)
        self.pooling = pooling

    def extra_repr(self) -> str:
        """Return the settings outside the weights, so that different encoders have different texts."""
        return f"pooling={self.pooling}"

    def settings(self) -> dict[str, str]:
        """Return the pooling."""
        return {POOLING_KEY: self.pooling}

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (N, D) of texts."""
        output, mask = self.run_model(tokens)
        if self.pooling == "pooler":
            return output.pooler_output
        states = output.last_hidden_state  # (N, T, D)
        if self.pooling == "cls":
            return states[:, 0]
        weights = mask.unsqueeze(2).to(states)
        return (states * weights).sum(1) / weights.sum(1)
