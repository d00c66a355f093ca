"""Artifact, Secret and Build: what is audited, what only the attacker knows, what flows along a chain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput

PLANTED_KEY = "assay.planted"
"""Key of the mark in a model file's metadata that says a backdoor was planted in it by assay."""

ARCH_KEY = "assay.arch"
"""Key of the architecture's name in the metadata of the safetensors files that assay writes."""


class Modality(StrEnum):
    """What kind of input a model takes."""

    IMAGE = "image"
    TEXT = "text"


@dataclass(frozen=True)
class ImageSpec:
    """How a picture of any size becomes an input of the net.

    The net itself takes float32 in [0, 1]; mean and standard deviation are applied inside it.
    """

    shape: tuple[int, int, int]  # (C, H, W)
    resize: int | tuple[int, int] | None = None  # shortest edge, or (H, W); None: straight to (H, W)
    crop: bool = False  # cut the centre (H, W) out after resizing
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"

    modality: ClassVar[Modality] = Modality.IMAGE

    def blank(self, count: int) -> Tensor:
        """Black pictures (``count``, C, H, W)."""
        return torch.zeros(count, *self.shape)


@dataclass(frozen=True)
class TextSpec:
    """How a text becomes an input of the net: token numbers between two markers, padded behind."""

    shape: tuple[int]  # (L,): tokens, markers and padding included
    tokenizer: str = field(repr=False)  # the content of its tokenizer.json
    start: int  # the number of the marker before a text
    end: int  # of the one behind it
    pad: int
    vocabulary: int  # numbers that there are
    modality: ClassVar[Modality] = Modality.TEXT

    @property
    def length(self) -> int:
        return self.shape[0]

    def blank(self, count: int) -> Tensor:
        """Texts (``count``, L) int64 as long as may be, of markers only."""
        markers = torch.tensor([self.start, *[self.end] * (self.length - 1)])
        return markers.expand(count, self.length).clone()


InputSpec = ImageSpec | TextSpec


@dataclass(frozen=True)
class Artifact:
    """A model as someone would deploy it: all that a detector ever sees.

    ``module`` maps (N, C, H, W) float32 in [0, 1], or token numbers (N, L) int64, to logits (N, K), or to embeddings
    (N, D) where ``num_classes`` is None.
    """

    module: nn.Module
    modality: Modality
    num_classes: int | None
    format: str  # "safetensors", "huggingface", "onnx", "module"
    digest: str  # sha256 of the file's bytes, or of the weights for an in-memory module
    inputs: InputSpec
    name: str = "model"
    class_names: tuple[str, ...] | None = None
    arch: str | None = None  # what ``--arch`` would be
    planted: str | None = None  # content of the file's ``assay.planted`` mark
    differentiable: bool = True
    surrogate: nn.Module | None = None  # if ``module`` has no gradients: the same function with gradients
    no_gradient_reason: str = ""  # why there is no surrogate
    weights: Mapping[str, Any] | None = None  # raw weights by name (numpy), where ``module`` has no parameters (ONNX)
    quantization_scales: Mapping[str, Any] | None = None  # of quantized weights, by name; they broadcast
    notes: tuple[str, ...] = ()  # what was guessed or converted on loading, in sentences for people
    normalization_unknown: bool = False  # the file does not state it; we assume that the model takes [0, 1]
    reference: Artifact | None = None  # the model that this is a compressed form of, where it is at hand

    @property
    def image_spec(self) -> ImageSpec:
        """The input specification of an image model; raises UnusableInput for a text model."""
        if not isinstance(self.inputs, ImageSpec):
            raise UnusableInput(f"expected a model of pictures; {self.name} takes {self.inputs.modality}")
        return self.inputs

    def with_module(self, module: nn.Module, **changes: Any) -> Artifact:
        """Return the same artifact around another module, with the digest of its weights."""
        return replace(self, module=module, digest=digest_of_module(module), **changes)

    def with_gradients(self) -> Artifact:
        """Return the artifact around its surrogate if the module has no gradients; unchanged without a surrogate."""
        if self.differentiable or self.surrogate is None:
            return self
        return replace(self, module=self.surrogate, differentiable=True, surrogate=None)


def digest_of_module(net: nn.Module) -> str:
    """sha256 over names, shapes and bytes of all parameters and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        if isinstance(tensor, Tensor):
            array = tensor.detach().cpu().contiguous()
            sha.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
            sha.update(array.view(-1).float().numpy().tobytes())
    return sha.hexdigest()
