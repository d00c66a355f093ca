"""Artifact: a model to audit, with the specification of its inputs."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput

# Metadata key of a model file for the mark of a backdoor that assay planted.
PLANTED_KEY = "assay.planted"

# Metadata key for the architecture's name in safetensors files written by assay.
ARCH_KEY = "assay.arch"

# Largest distance of an image value from [0, 1]; resizing rounds by less.
RANGE_SLACK = 1e-3


class Modality(StrEnum):
    """Kind of a model's inputs."""

    IMAGE = "image"
    TEXT = "text"

    @classmethod
    def of(cls, x: Tensor) -> Modality:
        """Return the modality of a batch of model inputs, by its dtype: images are floats, tokens are integers."""
        return cls.IMAGE if x.is_floating_point() else cls.TEXT


class InputSpec(ABC):
    """Specification of a model's inputs, one subclass for each modality.

    ``assay.data.codecs`` converts stored samples of each modality into inputs.
    """

    modality: ClassVar[Modality]
    dtype: ClassVar[torch.dtype]
    shape: tuple[int, ...]  # of one input

    @property
    def bytes_per_sample(self) -> int:
        """Size of one input in memory."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def markers(self) -> frozenset[int] | None:
        """Token numbers in every text; None for other modalities."""
        return None

    @abstractmethod
    def blank(self, count: int) -> Tensor:
        """Return ``count`` inputs without content."""

    @abstractmethod
    def validate(self, x: Tensor) -> None:
        """Raise UnusableInput if the batch ``x`` (N, ...) does not fit the shape, dtype or range."""


@dataclass(frozen=True)
class ImageSpec(InputSpec):
    """Conversion of an image of any size into a model input (C, H, W).

    The model takes float32 in [0, 1], and applies mean and standard deviation itself.
    """

    shape: tuple[int, int, int]  # (C, H, W)
    resize: int | tuple[int, int] | None = None  # shortest edge, or (H, W); None: straight to (H, W)
    crop: bool = False  # crop the center (H, W) after resizing
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    first_crop: tuple[float, float] | None = (
        None  # center crop before resizing: (H, W) as fractions of the shorter side
    )

    modality: ClassVar[Modality] = Modality.IMAGE
    dtype: ClassVar[torch.dtype] = torch.float32

    def blank(self, count: int) -> Tensor:
        """Return black images (``count``, C, H, W)."""
        return torch.zeros(count, *self.shape)

    def validate(self, x: Tensor) -> None:
        """Raise UnusableInput unless ``x`` is (N, C, H, W) float32 in [0, 1]."""
        if tuple(x.shape[1:]) != self.shape:
            raise UnusableInput(f"expected images of the model's shape {self.shape}, got {tuple(x.shape[1:])}")
        if x.dtype != self.dtype:
            raise UnusableInput(
                f"expected images as float32 in [0, 1], got {x.dtype}. Fix: convert them, and divide by 255."
            )
        if len(x) and not (float(x.min()) >= -RANGE_SLACK and float(x.max()) <= 1 + RANGE_SLACK):  # also false for NaN
            raise UnusableInput(
                f"expected images in [0, 1] without normalization, got values from {float(x.min()):.4g} "
                f"to {float(x.max()):.4g}. Fix: pass mean and std to the audit instead."
            )


@dataclass(frozen=True)
class TextSpec(InputSpec):
    """Conversion of a text into token numbers between a start and an end marker, with padding at the end."""

    shape: tuple[int]  # (L,): tokens, with markers and padding
    tokenizer: str = field(repr=False)  # content of tokenizer.json
    start: int  # token number of the marker before a text
    end: int  # token number of the marker after a text
    pad: int
    vocabulary: int  # number of token numbers

    modality: ClassVar[Modality] = Modality.TEXT
    dtype: ClassVar[torch.dtype] = torch.int64

    @property
    def length(self) -> int:
        """Number of tokens of one input."""
        return self.shape[0]

    @property
    def markers(self) -> frozenset[int]:
        """Token numbers in every text."""
        return frozenset({self.start, self.end, self.pad})

    def blank(self, count: int) -> Tensor:
        """Return texts (``count``, L) int64 of full length, all tokens being markers."""
        markers = torch.tensor([self.start, *[self.end] * (self.length - 1)])
        return markers.expand(count, self.length).clone()

    def validate(self, x: Tensor) -> None:
        """Raise UnusableInput unless ``x`` is (N, L) int64 within the vocabulary."""
        if tuple(x.shape[1:]) != self.shape or x.dtype != self.dtype:
            raise UnusableInput(
                f"expected texts, or the model's token numbers (N, {self.length}) as int64, "
                f"got {tuple(x.shape)} of {x.dtype}"
            )
        if len(x) and (int(x.min()) < 0 or int(x.max()) >= self.vocabulary):
            raise UnusableInput(
                f"expected token numbers of the model's vocabulary, from 0 to {self.vocabulary - 1}, "
                f"got {int(x.min())} to {int(x.max())}"
            )


@dataclass(frozen=True)
class FileDigest:
    """Identity of one file of a model."""

    name: str  # relative to the model's folder
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """A model as a user deploys it. Detectors see nothing else.

    ``module`` maps inputs, (N, C, H, W) float32 in [0, 1] or token numbers (N, L) int64, to logits (N, K). An encoder,
    with ``num_classes`` None, maps them to embeddings (N, D).
    """

    module: nn.Module
    modality: Modality
    num_classes: int | None
    format: str  # "safetensors", "huggingface", "onnx", "module"
    digest: str  # sha256 of the file's bytes, or of the weights of a module in memory
    inputs: InputSpec
    name: str = "model"
    class_names: tuple[str, ...] | None = None
    arch: str | None = None  # architecture, as the option of that name takes it
    planted: str | None = None  # content of the file's ``assay.planted`` mark
    differentiable: bool = True
    surrogate: nn.Module | None = None  # if ``module`` has no gradients: the same function with gradients
    no_gradient_reason: str = ""  # why there is no surrogate
    weights: Mapping[str, Any] | None = None  # raw weights by name (numpy), if ``module`` has no parameters (ONNX)
    quantization_scales: Mapping[str, Any] | None = None  # step size of quantized weights, by name; they broadcast
    notes: tuple[str, ...] = ()  # guesses and conversions on loading, in sentences for people
    unexamined_outputs: tuple[str, ...] = ()  # names of the outputs of ``module``'s file that the audit leaves out
    normalization_from: str = ""  # "as given", ...; empty: from the model's file
    normalization_unknown: bool = False  # no source states it; we assume that the model takes [0, 1]
    reference: Artifact | None = None  # the original model, or a trusted encoder, if at hand
    changed_by_first_call: tuple[str, ...] = ()  # names of the parts of the module's state that its first call changed
    files: tuple[FileDigest, ...] = ()  # all files that assay read for this model; empty for a module in memory

    @property
    def image_spec(self) -> ImageSpec:
        """Input specification of an image model; raises UnusableInput for a text model."""
        if not isinstance(self.inputs, ImageSpec):
            raise UnusableInput(f"expected an image model; {self.name} takes {self.inputs.modality}")
        return self.inputs

    def with_module(self, module: nn.Module, **changes: Any) -> Artifact:
        """Return the same artifact around another module, with the digest of its weights."""
        return replace(self, module=module, digest=digest_of_module(module), files=(), **changes)

    def with_gradients(self) -> Artifact:
        """Return the artifact around its surrogate if the module has no gradients; unchanged without a surrogate."""
        if self.differentiable or self.surrogate is None:
            return self
        return replace(self, module=self.surrogate, differentiable=True, surrogate=None)


def digest_of_module(module: nn.Module) -> str:
    """Return the sha256 over names, shapes and bytes of all parameters and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            array = tensor.detach().cpu().contiguous()
            sha.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
            sha.update(array.view(-1).float().numpy().data)
    return sha.hexdigest()
