"""A classifier as the encoder that it is up to its last linear layer."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.formats.adapt import answer_to
from assay.nn.encoders import FeatureExtractor


def to_feature_extractor(artifact: Artifact) -> Artifact:
    """``artifact`` without its last linear layer: it answers with features (N, D). An encoder stays as it is.

    Raises UnusableInput where the net does not end in a linear layer.
    """
    if artifact.num_classes is None:
        return artifact
    if not artifact.differentiable:
        raise UnusableInput(
            f"{artifact.name}: cutting a classifier at its features needs weights in torch, which a model in "
            f"{artifact.format} format does not have: give the model that it was made from"
        )
    net = FeatureExtractor(copy.deepcopy(artifact.module))
    if _shape_of_answer(net, artifact) != (2, net.width):
        raise UnusableInput(
            f"{artifact.name}: expected a net whose answer is its last linear layer's ({net.place}); something comes "
            "after it, so there are no features to cut it at"
        )
    return replace(artifact, module=net.eval(), num_classes=None, class_names=None)


def _shape_of_answer(net: FeatureExtractor, artifact: Artifact) -> tuple[int, ...] | None:
    """Of two blank inputs; None where the net does not run without its last layer."""
    try:
        answer = answer_to(net, artifact.inputs.blank(2))
    except UnusableInput:
        return None
    return tuple(answer.shape) if isinstance(answer, Tensor) else None
