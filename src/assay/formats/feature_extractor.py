"""Conversion of a classifier into the encoder before its last linear layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.formats.adapt import output_of
from assay.nn.encoders import CUT_KEY, FeatureExtractor


def to_feature_extractor(artifact: Artifact) -> Artifact:
    """Return the artifact without its last linear layer: it outputs features (N, D). An encoder stays unchanged.

    Raises:
        UnusableInput: The model has no gradients, or its last step is no linear layer.
    """
    if artifact.num_classes is None:
        return artifact
    if not artifact.differentiable:
        raise UnusableInput(
            f"{artifact.name}: expected weights in torch for a feature extractor, got a model in {artifact.format} "
            "format. Fix: give the model from which it was made."
        )
    module = FeatureExtractor(copy.deepcopy(artifact.module))
    try:
        output = output_of(module, artifact.inputs.blank(2))
    except UnusableInput:  # the model does not run without its last layer
        output = None
    if not isinstance(output, Tensor) or tuple(output.shape) != (2, module.width):
        raise UnusableInput(
            f"{artifact.name}: expected a model whose last step is a linear layer ({module.head_name}), got "
            "further steps after it, so there are no features to use as embeddings"
        )
    return replace(artifact, module=module.eval(), num_classes=None, class_names=None)


def rebuild_feature_extractor(artifact: Artifact, metadata: Mapping[str, str], where: str) -> Artifact:
    """Return the feature extractor of an artifact if its file's metadata describes one.

    Args:
        artifact: The whole classifier.
        metadata: Text metadata of the file.
        where: Name of the file in error messages.
    """
    return to_feature_extractor(artifact) if CUT_KEY in metadata else artifact
