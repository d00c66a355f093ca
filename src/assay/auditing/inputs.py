"""The audit's door: what people hand in becomes an Artifact and clean samples, or one clear line says why not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from assay.calibration import file
from assay.calibration.null import NullDistribution
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup
from assay.core.model import Artifact, ImageSpec, TextSpec
from assay.data.tokenize import encoded, told_of_cut
from assay.detectors import default_detectors
from assay.detectors.base import Detector
from assay.formats.shape import written

SAMPLES = 512
"""Clean samples that an audit uses at most."""

RANGE_SLACK = 1e-3
"""How far outside [0, 1] a picture may be: what resizing rounds."""

Model: TypeAlias = str | Path | nn.Module | Artifact
Data: TypeAlias = (
    str | Path | Task | Split | Tensor | np.ndarray | DataLoader[Any] | Dataset[Any] | Sequence[Any] | None
)
"""A source as on the command line, a Task, a Split, pictures, [pictures, labels], a torch DataLoader or Dataset."""


@dataclass(frozen=True)
class Clean:
    """The clean samples of an audit, at most ``SAMPLES`` of them."""

    name: str
    split: Split
    class_names: tuple[str, ...] | None = None  # what the data calls the model's classes
    notes: tuple[str, ...] = ()  # what was guessed when the data was read


@dataclass(frozen=True)
class Said:
    """What whoever asks says about the model; None where nothing."""

    arch: str | None = None
    shape: Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    features: bool = False  # cut a classifier at its features
    pooling: str | None = None  # of a Hugging Face encoder

    def options(self, artifact: Artifact) -> dict[str, Any]:
        """The arguments that say it again, of the model that ``artifact`` became."""
        return {
            "arch": self.arch,
            "shape": None if self.shape is None else artifact.inputs.shape,
            "mean": None if self.mean is None else tuple(map(float, self.mean)),
            "std": None if self.std is None else tuple(map(float, self.std)),
            "features": self.features or None,
            "pooling": self.pooling,
        }


def artifact_of(model: Model, said: Said) -> Artifact:
    """The model as the audit takes it; raises UnusableInput where it cannot be used."""
    from assay import formats
    from assay.formats.feature_extractor import to_feature_extractor
    from assay.formats.torch_module import from_module

    if isinstance(model, Artifact):
        found = model
    elif isinstance(model, nn.Module):
        found = from_module(model, shape=said.shape, mean=said.mean, std=said.std)
    elif isinstance(model, str | Path):
        found = formats.load(
            model, arch=said.arch, shape=said.shape, mean=said.mean, std=said.std, pooling=said.pooling
        )
    else:
        raise UnusableInput(f"expected a model as a path, a hub id or an nn.Module; got a {type(model).__name__}")
    return to_feature_extractor(found) if said.features else found


def beside(artifact: Artifact, reference: Artifact) -> Artifact:
    """``artifact`` with the full-precision model that it was made from, or a trusted encoder; it stands in its notes.

    What names other classes than a classifier is cut at its features: the encoder that the classifier comes from.
    Raises UnusableInput where the two cannot be forms of one model; encoders need only take the same inputs.
    """
    from assay.formats.feature_extractor import to_feature_extractor

    expected, came = ((a.num_classes, a.inputs.shape) for a in (artifact, reference))
    comes_from = artifact.num_classes is not None and artifact.num_classes != reference.num_classes
    if expected[1] != came[1] or (expected[0] != came[0] and not comes_from):
        (classes, shape), (others_classes, others_shape) = (
            ("an encoder" if count is None else f"{count} classes", written(shape)) for count, shape in (expected, came)
        )
        raise UnusableInput(
            f"expected a reference that is like {artifact.name}: {classes}, inputs {shape}; {reference.name} is "
            f"another model: {others_classes}, inputs {others_shape}"
        )
    if comes_from and reference.num_classes is not None:
        try:
            reference = to_feature_extractor(reference)
        except UnusableInput as why:
            raise UnusableInput(
                f"expected a reference of {expected[0]} classes, or an encoder; {reference.name} names {came[0]} "
                f"classes and cannot be taken as one: {why}"
            ) from None
    kind = "encoder" if reference.num_classes is None else "full-precision model"
    sizes, others = Counter(_sizes_of_weights(artifact)), Counter(_sizes_of_weights(reference))
    # Encoders beside encoders may differ; what was fine-tuned from one has all its layers.
    if artifact.num_classes is not None and (others - sizes or (sizes != others and not comes_from)):
        raise UnusableInput(
            f"expected a reference whose layers are those of {artifact.name} ({sizes.total()} with weights); "
            f"{reference.name} has {others.total()} of other sizes: it is another architecture"
        )
    note = f"compared with the {kind} {reference.name} (sha256 {reference.digest[:12]}...)"
    return replace(artifact, reference=reference, notes=(*artifact.notes, note))


def _sizes_of_weights(artifact: Artifact) -> list[int]:
    """How many numbers each layer's weights have, whatever way they lie."""
    shapes = [tuple(parameter.shape) for parameter in artifact.module.parameters()]
    if artifact.weights is not None:
        shapes = [np.shape(weight) for weight in artifact.weights.values()]
    layers = [shape for shape in shapes if sum(side > 1 for side in shape) > 1]
    return sorted(math.prod(shape) for shape in layers)


def clean_samples(data: Data, artifact: Artifact, *, seed: int, labels: bool = True) -> Clean:
    """The samples to audit ``artifact`` with, without their labels where ``labels`` is False.

    Raises UnusableInput where they are none of this model's.
    """
    from assay import data as loaders
    from assay.data.readers.in_memory import in_memory

    name, class_names = "data in memory", None
    notes: tuple[str, ...] = ()
    if data is None:
        return Clean("none", Split(artifact.inputs.blank(0), None))
    if isinstance(data, str | Path):
        data = loaders.load(
            data,
            artifact.inputs,
            num_classes=artifact.num_classes,
            class_names=artifact.class_names,
            limit=4 * SAMPLES,
            seed=seed,
            labels=labels,
        )
    if isinstance(data, Task):
        name, notes = data.name, data.notes
        class_names = data.class_names if data.num_classes == artifact.num_classes else None
        data = data.split("calibration", "validation", "train", "test")
    if isinstance(artifact.inputs, TextSpec) and isinstance(data, list | tuple) and _all_texts(data):
        data, cut_off = encoded(data, artifact.inputs)
        notes = told_of_cut(cut_off, artifact.inputs)
    split = in_memory(data, limit=SAMPLES, seed=seed)
    if not labels:
        split = Split(split.x, None)
    check(split, artifact)
    return Clean(name, split.sample(SAMPLES, seed=seed), class_names, notes)


def reference_of(null: NullDistribution | str | Path | None, *, encoder: bool = False) -> NullDistribution | None:
    """The clean reference models: those of the package, or those in a file that ``assay calibrate`` wrote.

    ``encoder``: what is compared with them is one. Raises UnusableInput where they are of the other kind.
    """
    if null is None:
        return file.load_shipped(encoders=encoder)
    found = null_of(null)
    if found.encoders != encoder:
        kinds = {False: "a classifier", True: "an encoder"}
        raise UnusableInput(
            f"expected clean models to compare {kinds[encoder]} with; those of {found.name} are each "
            f"{kinds[found.encoders]}: calibrate with models of its kind (assay calibrate)"
        )
    return found


def null_of(null: NullDistribution | str | Path) -> NullDistribution:
    """Clean reference models, or those in a file that ``assay calibrate`` wrote."""
    return null if isinstance(null, NullDistribution) else file.load(Path(null))


def detectors_of(wanted: Sequence[Detector | str] | str | None) -> tuple[Detector, ...]:
    """Detectors as they are or by their names (in one text: with commas between them); None: those of an audit."""
    from assay.registry import all_detectors

    if wanted is None:
        return default_detectors()
    names = dict.fromkeys(part.strip() for part in wanted.split(",")) if isinstance(wanted, str) else wanted
    known = {detector.name: detector for detector in all_detectors()}
    for name in names:
        if not isinstance(name, str | Detector):
            raise UnusableInput(f"expected detectors as objects or names; got a {type(name).__name__}")
    return tuple(lookup(name, known, "detector") if isinstance(name, str) else name for name in names)


def check(split: Split, artifact: Artifact) -> None:
    """Raises UnusableInput where these samples are none of this model's."""
    x, y = split.x, split.y
    if isinstance(artifact.inputs, TextSpec):
        _check_tokens(x, artifact.inputs)
    else:
        _check_pictures(x, artifact.inputs)
    if y is not None:
        _check_labels(y, len(x), artifact.num_classes)


def _all_texts(data: Sequence[Any]) -> bool:
    return bool(data) and all(isinstance(text, str) for text in data)


def _check_tokens(x: Tensor, spec: TextSpec) -> None:
    if tuple(x.shape[1:]) != spec.shape or x.dtype != torch.int64:
        raise UnusableInput(
            f"expected texts, or token numbers (N, {spec.length}) as int64, as the model takes them; "
            f"got {tuple(x.shape)} of {x.dtype}"
        )
    if len(x) and (int(x.min()) < 0 or int(x.max()) >= spec.vocabulary):
        raise UnusableInput(f"expected token numbers from 0 to {spec.vocabulary - 1}, the model's vocabulary")


def _check_pictures(x: Tensor, spec: ImageSpec) -> None:
    if tuple(x.shape[1:]) != spec.shape:
        raise UnusableInput(
            f"expected pictures of shape {spec.shape}, as the model takes them; got {tuple(x.shape[1:])}"
        )
    if x.dtype != torch.float32:
        raise UnusableInput(f"expected pictures as float32 in [0, 1]; got {x.dtype}: convert them, and divide by 255")
    if len(x) and not (float(x.min()) >= -RANGE_SLACK and float(x.max()) <= 1 + RANGE_SLACK):  # NaN fails as well
        raise UnusableInput(
            f"expected pictures in [0, 1], without normalization; got values from {float(x.min()):.4g} "
            f"to {float(x.max()):.4g}: pass mean and std to the audit instead"
        )


def _check_labels(y: Tensor, count: int, classes: int | None) -> None:
    if tuple(y.shape) != (count,):
        raise UnusableInput(f"expected a label for each of {count} pictures; got labels of shape {tuple(y.shape)}")
    if y.dtype != torch.int64:
        raise UnusableInput(f"expected labels as whole numbers; got {y.dtype}: convert them to int64")
    if len(y) and classes is not None and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise UnusableInput(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes; "
            f"got labels from {int(y.min())} to {int(y.max())}"
        )
