"""Encoders with embeddings (N, D), and heads for classification."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from assay.nn.head import last_linear, random_linear, set_submodule
from assay.nn.saving import SavedWrapper
from assay.nn.unit_margin import UnitMargin

# Metadata key of a model file: the last linear layer is in the file, but not in use.
CUT_KEY = "assay.cut"
# Prefix of the tensors of a linear layer behind an encoder in a model file.
HEAD_PREFIX = "assay.head."


class FeatureExtractor(nn.Module):
    """Classifier without its last linear layer: (N, C, H, W) -> (N, D). Uses the classifier's layers, without a copy.

    Dropout directly before that layer is removed too. In the training of an encoder its noise would dominate the
    comparison of embeddings (MobileNetV2's drops 80 % of the features).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.head_name, head = last_linear(net)
        cut_off: dict[str, nn.Module] = {self.head_name: head}
        leaves = [name for name, module in net.named_modules() if not any(True for _ in module.children())]
        before = leaves[: leaves.index(self.head_name)][-1:]  # the layer registered directly before the head, if any
        if before and isinstance(dropout := net.get_submodule(before[0]), nn.Dropout):
            cut_off[before[0]] = dropout
        for name in cut_off:
            set_submodule(net, name, nn.Identity())
        self.body = net
        self.width = head.in_features  # D
        self._cut_off = (cut_off,)  # in a tuple: not registered as submodules, so compression skips them

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def classifier(self, head: nn.Linear | None = None) -> nn.Module:
        """Return the classifier again, with the removed layers or with ``head``. Uses these layers, without a copy."""
        for name, module in self._cut_off[0].items() if head is None else {self.head_name: head}.items():
            set_submodule(self.body, name, module)
        return self.body

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        """Return a copy of the whole classifier, with the cut as metadata."""
        return SavedWrapper(copy.deepcopy(self).classifier(), {CUT_KEY: "features"})


class EncoderClassifier(nn.Module):
    """Encoder followed by a linear layer: (N, ...) -> logits (N, K)."""

    encoder: nn.Module
    head: nn.Linear

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        """Return the encoder, with the tensors of the linear layer."""
        return SavedWrapper(self.encoder, tensors=self.head.state_dict(prefix=HEAD_PREFIX))


class ClusterProbe(EncoderClassifier):
    """Encoder under audit: the linear layer predicts the nearest of K clusters of its embeddings."""


def find_cluster_probe(model: nn.Module) -> ClusterProbe | None:
    """Return the cluster probe inside ``model``, with or without margin scaling; None for a classifier."""
    inner = model.net if isinstance(model, UnitMargin) else model
    return inner if isinstance(inner, ClusterProbe) else None


def attach_head(encoder: nn.Module, width: int, num_classes: int, *, seed: int) -> nn.Module:
    """Put a random last layer on an encoder. Uses the encoder's layers, without a copy.

    Args:
        encoder: Encoder with embeddings (N, ``width``).
        width: Embedding size D.
        num_classes: Outputs of the new layer.
        seed: Seed of its random weights.

    Returns:
        Classifier.
    """
    head = random_linear(width, num_classes, seed=seed).to(next(encoder.parameters(), torch.zeros(())))
    return encoder.classifier(head) if isinstance(encoder, FeatureExtractor) else EncoderClassifier(encoder, head)
