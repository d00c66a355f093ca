"""Conversion of user input (model, data, null, detectors) into objects of an audit.

Raises ``UnusableInput`` with a one-line reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from assay.auditing.config import DataSource, ModelSource
from assay.auditing.facts import CleanSamples, sample_limit
from assay.auditing.input_check import content_notes
from assay.calibration import file
from assay.calibration.null import NullDistribution
from assay.core.dataset import DataSummary, Split, Task
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup
from assay.core.model import Artifact
from assay.core.options import ModelOptions
from assay.data.codecs import CODECS
from assay.detectors import default_detectors
from assay.detectors.base import Detector
from assay.formats.shape import format_shape

USED_SPLITS = ("calibration", "validation", "train", "test")
KINDS = {False: "a classifier", True: "an encoder"}


def load_model(model: ModelSource, options: ModelOptions, *, base: str | Path | None = None) -> Artifact:
    """Load a model.

    Args:
        model: A path or hub id, a module in memory, or a loaded model.
        options: Loading options of the model.
        base: Base model of an adapter.

    Raises:
        UnusableInput: The model cannot be loaded, or its classifier cannot be cut.
    """
    from assay import formats
    from assay.formats.feature_extractor import to_feature_extractor
    from assay.formats.torch_module import from_module

    if isinstance(model, str | Path):
        return formats.load(model, **options.as_keywords(), base=base)
    if isinstance(model, Artifact):
        artifact = model
    elif isinstance(model, nn.Module):
        _refuse_multi_label(model, options)
        artifact = from_module(model, shape=options.shape, mean=options.mean, std=options.std, output=options.output)
        if options.mean is not None:
            artifact = replace(artifact, normalization_from="as given")
    else:
        raise UnusableInput(f"expected a model as a path, a hub id or an nn.Module, got a {type(model).__name__}")
    return to_feature_extractor(artifact) if options.features else artifact


def _refuse_multi_label(model: nn.Module, options: ModelOptions) -> None:
    """Raise UnusableInput for a transformers model whose answer is a set of labels, unless its encoder is audited."""
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if problem == "multi_label_classification" and not options.features:
        raise UnusableInput(
            "expected a model with one class as its answer, got a multi-label classifier (problem_type). "
            "Fix: audit the encoder below its last layer (features)."
        )


def attach_reference(artifact: Artifact, reference: Artifact) -> Artifact:
    """Return a model with the model to compare it with: its original, or a trusted encoder.

    A reference classifier with other classes is cut before its last layer: it is the encoder behind the model.

    Args:
        artifact: The model.
        reference: A variant of the same model, or a trusted encoder. Two encoders need only take the same inputs.

    Raises:
        UnusableInput: The two models cannot be compared.
    """
    from assay.formats.feature_extractor import to_feature_extractor

    same_classes = artifact.num_classes == reference.num_classes
    is_encoder = artifact.num_classes is None
    if artifact.inputs.shape != reference.inputs.shape or (is_encoder and not same_classes):
        raise UnusableInput(
            f"expected a reference like {artifact.name} ({_describe(artifact)}), got another model: {reference.name} "
            f"({_describe(reference)})"
        )
    if not same_classes and reference.num_classes is not None:
        try:
            reference = to_feature_extractor(reference)
        except UnusableInput as error:
            raise UnusableInput(
                f"expected a reference of {artifact.num_classes} classes, or an encoder, got {reference.name} of "
                f"{reference.num_classes} classes, which cannot be used as an encoder: {error}"
            ) from None
    own, others = Counter(_weight_sizes(artifact)), Counter(_weight_sizes(reference))
    # Two encoders may differ. A classifier fine-tuned from an encoder has all its layers, and more.
    if not is_encoder and (others - own or (own != others and same_classes)):
        raise UnusableInput(
            f"expected a reference with the layers of {artifact.name} ({own.total()} with weights), "
            f"got another architecture: {reference.name} ({others.total()} of other sizes)"
        )
    kind = "encoder" if reference.num_classes is None else "full-precision model"
    note = f"compared with the {kind} {reference.name} (sha256 {reference.digest[:12]}...)"
    return replace(artifact, reference=reference, notes=(*artifact.notes, note))


def _describe(artifact: Artifact) -> str:
    kind = "an encoder" if artifact.num_classes is None else f"{artifact.num_classes} classes"
    return f"{kind}, inputs {format_shape(artifact.inputs.shape)}"


def _weight_sizes(artifact: Artifact) -> list[int]:
    """Return the number of weights of each layer. The layout of the weights does not count."""
    shapes = [tuple(parameter.shape) for parameter in artifact.module.parameters()]
    if artifact.weights is not None:
        shapes = [np.shape(weight) for weight in artifact.weights.values()]
    layers = [shape for shape in shapes if sum(side > 1 for side in shape) > 1]
    return sorted(math.prod(shape) for shape in layers)


def clean_samples(
    data: DataSource, artifact: Artifact, *, seed: int, labels: bool = True, label_column: str | None = None
) -> CleanSamples:
    """Return the clean samples of an audit.

    Args:
        data: Source of the samples; None: there are none.
        artifact: The model.
        seed: Seed of the random choice, if there are more than ``sample_limit``.
        labels: False: leave out all labels.
        label_column: Column of the labels in a table, or key of a Dataset of dicts; None: a usual name.

    Raises:
        UnusableInput: The samples or labels do not fit the model.
    """
    from assay import data as loaders

    name, class_names, used = "data in memory", None, ""
    notes: tuple[str, ...] = ()
    summary = DataSummary()
    limit = sample_limit(artifact.inputs)
    drawn = isinstance(data, str | Path)
    if data is None:
        if label_column is not None:
            raise UnusableInput(f"expected data for the label column {label_column!r}, got none. Fix: give the data.")
        return CleanSamples("none", Split(artifact.inputs.blank(0), None))
    if isinstance(data, str | Path):
        data = loaders.load(
            data,
            artifact.inputs,
            num_classes=artifact.num_classes,
            class_names=artifact.class_names,
            limit=4 * limit,
            seed=seed,
            labels=labels,
            label_column=label_column,
            partial=True,
            clean_samples=limit,
        )
        label_column = None
    if isinstance(data, Task):
        name, notes, summary = data.name, data.notes, data.summary
        class_names = data.class_names if data.num_classes == artifact.num_classes else None
        used = next((split for split in USED_SPLITS if split in data.splits), next(iter(data.splits)))
        data = data.splits[used]
    split, conversions = _to_inputs(data, artifact, seed=seed, label_column=label_column)
    if not labels:
        split = Split(split.x, None)
    artifact.inputs.validate(split.x)
    if split.y is not None:
        _check_labels(split.y, len(split), artifact.num_classes)
    if not drawn:
        split = split.sample(limit, seed=seed)
    notes = (*notes, *conversions, *content_notes(split.x))
    return CleanSamples(name, split, class_names, notes, summary, used)


def _to_inputs(
    data: object, artifact: Artifact, *, seed: int, label_column: str | None
) -> tuple[Split, tuple[str, ...]]:
    """Return data in memory as inputs of a model, and notes on their conversion.

    Args:
        data: A split, arrays, texts, or a torch data set.
        artifact: The model.
        seed: Seed of the random choice out of a data set.
        label_column: Key of the labels in samples that are dicts; None: a usual one.
    """
    from assay.data.readers.in_memory import read_samples

    raw, notes = CODECS[artifact.modality].convert_raw(data, artifact.inputs)
    split, more = read_samples(
        raw, artifact.inputs, limit=sample_limit(artifact.inputs), seed=seed, label_column=label_column
    )
    return split, (*notes, *more)


def _check_labels(y: Tensor, count: int, classes: int | None) -> None:
    if tuple(y.shape) != (count,):
        raise UnusableInput(f"expected a label for each of {count} samples, got labels of shape {tuple(y.shape)}")
    if y.dtype != torch.int64:
        raise UnusableInput(f"expected labels as whole numbers, got {y.dtype}. Fix: convert them to int64.")
    if len(y) and classes is not None and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise UnusableInput(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes, "
            f"got labels from {int(y.min())} to {int(y.max())}"
        )


def null_of(null: NullDistribution | str | Path | None, *, encoders: bool = False) -> NullDistribution | None:
    """Return the clean reference models to compare with.

    Args:
        null: Reference models, or their file; None: those of the package.
        encoders: Whether the audited model is an encoder.

    Raises:
        UnusableInput: The file cannot be read, or the reference models are of the other kind.
    """
    if null is None:
        return file.load_shipped(encoders=encoders)
    found = load_null(null)
    if found.encoders != encoders:
        raise UnusableInput(
            f"expected clean models to compare {KINDS[encoders]} with, got those of {found.name}: each is "
            f"{KINDS[found.encoders]}. Fix: calibrate with models of the same kind (assay calibrate)."
        )
    return found


def load_null(null: NullDistribution | str | Path) -> NullDistribution:
    """Return clean reference models, from their file if ``null`` is a path."""
    return null if isinstance(null, NullDistribution) else file.load(Path(null))


def detectors_of(wanted: Sequence[Detector | str] | str | None) -> tuple[Detector, ...]:
    """Return detectors by name.

    Args:
        wanted: Detectors or their names, or one text with commas; None: the default detectors.

    Raises:
        UnusableInput: There is no detector of a name.
    """
    from assay.registry import all_detectors

    if wanted is None:
        return default_detectors()
    names = dict.fromkeys(part.strip() for part in wanted.split(",")) if isinstance(wanted, str) else wanted
    known = {detector.name: detector for detector in all_detectors()}
    for name in names:
        if not isinstance(name, str | Detector):
            raise UnusableInput(f"expected detectors as objects or names, got a {type(name).__name__}")
    return tuple(lookup(name, known, "detector") if isinstance(name, str) else name for name in names)
