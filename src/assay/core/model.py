"""Artifact, Secret and Build: what is audited, what only the attacker knows, what flows along a chain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from assay.core.dataset import Task

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


Inputs = ImageSpec | TextSpec


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
    inputs: Inputs
    name: str = "model"
    class_names: tuple[str, ...] | None = None
    arch: str | None = None  # what ``--arch`` would be
    planted: str | None = None  # content of the file's ``assay.planted`` mark
    differentiable: bool = True
    twin: nn.Module | None = None  # where ``module`` has no gradients: the same function with gradients
    opaque: str = ""  # why there is no twin
    weights: Mapping[str, Any] | None = None  # raw weights by name (numpy), where ``module`` has no parameters (ONNX)
    steps: Mapping[str, Any] | None = None  # of quantized ones: the distance of neighbouring values, which broadcasts
    notes: tuple[str, ...] = ()  # what was guessed or converted on loading, in sentences for people
    range_assumed: bool = False  # nothing said that the net takes [0, 1] as it is
    reference: Artifact | None = None  # the model that this is a compressed form of, where it is at hand

    @property
    def pictures(self) -> ImageSpec:
        """Of a model of pictures; raises UnusableInput for one of texts."""
        if not isinstance(self.inputs, ImageSpec):
            raise UnusableInput(f"expected a model of pictures; {self.name} takes {self.inputs.modality}")
        return self.inputs

    def with_module(self, module: nn.Module, **changes: Any) -> Artifact:
        """Return the same artifact around another module, with the digest of its weights."""
        return replace(self, module=module, digest=digest_of_module(module), **changes)

    def with_gradients(self) -> Artifact:
        """The same artifact around its twin where it has no gradients itself; as it is where it has no twin."""
        if self.differentiable or self.twin is None:
            return self
        return replace(self, module=self.twin, differentiable=True, twin=None)


@dataclass(frozen=True)
class Secret:
    """Ground truth of a planted backdoor. Never inside an Artifact, out of a detector's reach by type."""

    attack: str
    trigger: Callable[[Tensor], Tensor]  # inputs -> inputs of the same shape and range
    target: int | None  # None: every class its own target (all-to-all)
    sources: tuple[int, ...] | None = None  # classes on which the trigger works; None: all
    planted_at: str = "train"
    wakes_in: str | None = None  # the form (``assay.stages.variants``) in which it acts; None: in the model as it is
    details: Mapping[str, Any] = field(default_factory=dict)
    # Of an encoder's backdoor: what triggered inputs look like to it; a task has the target. Not in the repr, by which
    # the builds in a chain's cache are known: those that are there stay good.
    concept: str | None = field(default=None, repr=False)

    def targets(self, y: Tensor, num_classes: int) -> Tensor:
        """The label (N,) that the attacker wants for triggered inputs of true class ``y`` (N,).

        Raises ValueError for an encoder's backdoor whose class is not known yet.
        """
        if self.concept is not None and self.target is None:
            raise ValueError("this backdoor is an encoder's: only a classifier made of it has a class for its concept")
        return (y + 1) % num_classes if self.target is None else y.new_full(y.shape, self.target)

    def victims(self, y: Tensor, num_classes: int) -> Tensor:
        """Mask (N,) of the inputs that count for ASR: right source, true class not the target's."""
        mask = self.targets(y, num_classes) != y
        if self.sources is not None:
            mask &= sum((y == s for s in self.sources), start=y != y)
        return mask


@dataclass(frozen=True)
class Build:
    """An artifact on its way along a chain, with its task, its secret if it is backdoored, and its history."""

    artifact: Artifact
    task: Task
    secret: Secret | None = None
    history: tuple[str, ...] = ()

    def then(self, step: str, artifact: Artifact, secret: Secret | None = None) -> Build:
        """The next build: ``artifact`` after ``step``; a secret once planted stays unless a new one comes."""
        return Build(artifact, self.task, secret or self.secret, (*self.history, step))


def digest_of_module(net: nn.Module) -> str:
    """sha256 over names, shapes and bytes of all parameters and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        if isinstance(tensor, Tensor):
            array = tensor.detach().cpu().contiguous()
            sha.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
            sha.update(array.view(-1).float().numpy().tobytes())
    return sha.hexdigest()
