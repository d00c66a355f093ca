"""Transformers models in safetensors files of assay, with their config in the metadata."""

from __future__ import annotations

import json

from torch import nn

from assay.core.errors import UnusableInput
from assay.core.model import InputSpec, TextSpec
from assay.formats.huggingface.build import build, is_encoder, refuse_code, takes_text
from assay.formats.huggingface.pooling import parse_pooling
from assay.formats.huggingface.wrappers import (
    ARCH,
    CONFIG_KEY,
    FLIP_KEY,
    POOLING_KEY,
    Embeddings,
    Logits,
    TextEmbeddings,
    TextLogits,
)
from assay.formats.safetensors_check import Weights

__all__ = ["ARCH", "CONFIG_KEY", "rebuild"]


def rebuild(weights: Weights, inputs: InputSpec, where: str) -> tuple[nn.Module, bool]:
    """Return the model in a file of assay, and whether it is an encoder.

    Args:
        weights: Content of the file.
        inputs: Specification of the model's inputs.
        where: Name of the file in error messages.

    Raises:
        UnusableInput: The metadata is malformed, or does not fit the weights.
    """
    try:
        settings = json.loads(weights.metadata[CONFIG_KEY])
    except (ValueError, RecursionError):
        raise UnusableInput(f"{where}: metadata {CONFIG_KEY} is not valid JSON") from None
    refuse_code(settings, where)
    flip, pooling = weights.metadata.get(FLIP_KEY) == "1", parse_pooling(weights.metadata.get(POOLING_KEY))
    if not isinstance(settings, dict):
        raise UnusableInput(f"{where}: expected metadata {CONFIG_KEY} as a JSON object")
    if is_encoder(settings) != (pooling is not None):
        raise UnusableInput(f"{where}: expected metadata {POOLING_KEY} for an encoder, and for no other model")
    model = build(settings, weights.tensors, where)
    if takes_text(model) != isinstance(inputs, TextSpec):
        raise UnusableInput(f"{where}: its config and the inputs in its metadata do not belong together")
    module: nn.Module
    if isinstance(inputs, TextSpec):
        module = TextLogits(model, inputs.pad) if pooling is None else TextEmbeddings(model, inputs.pad, pooling)
    else:
        module = Logits(model, flip=flip) if pooling is None else Embeddings(model, pooling, flip=flip)
    return module, pooling is not None
