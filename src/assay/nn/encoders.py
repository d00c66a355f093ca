"""Encoders: nets that answer with embeddings (N, D), and the heads that make classifiers of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.nn.head import last_linear, random_linear, set_submodule
from assay.nn.unit_margin import UnitMargin


class FeatureExtractor(nn.Module):
    """A classifier cut before its last linear layer: (N, C, H, W) -> (N, D). It takes the classifier's layers over.

    Dropout right before that layer goes with it: it is there for the layer's sake, and left in an encoder that is
    trained it would drown what the embeddings are compared for (MobileNetV2's leaves out 80 % of them).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.place, head = last_linear(net)
        cut_off: dict[str, nn.Module] = {self.place: head}
        before = _leaf_before(net, self.place)
        if before and isinstance(dropout := net.get_submodule(before), nn.Dropout):
            cut_off[before] = dropout
        for place in cut_off:
            set_submodule(net, place, nn.Identity())
        self.body = net
        self.width = head.in_features  # D
        self._cut_off = (cut_off,)  # no part of this net: what prunes or rounds an encoder has nothing to do with it

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def classifier(self, head: nn.Linear | None = None) -> nn.Module:
        """The whole net again, with what was cut off, or with ``head`` alone; it takes this net's layers over."""
        for place, module in self._cut_off[0].items() if head is None else {self.place: head}.items():
            set_submodule(self.body, place, module)
        return self.body


def _leaf_before(net: nn.Module, place: str) -> str:
    """The name of the layer that was registered right before the one at ``place``; empty where there is none."""
    leaves = [name for name, module in net.named_modules() if not any(True for _ in module.children())]
    number = leaves.index(place)
    return leaves[number - 1] if number else ""


class EncoderClassifier(nn.Module):
    """An encoder with a linear layer behind it: (N, ...) -> logits (N, K)."""

    encoder: nn.Module
    head: nn.Linear

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


class ClusterProbe(EncoderClassifier):
    """An encoder under audit: the linear layer names the nearest of K clusters of its embeddings."""


def find_cluster_probe(net: nn.Module) -> ClusterProbe | None:
    """The encoder under audit in ``net``, whatever its logits are counted in; None where that is a classifier."""
    inner = net.net if isinstance(net, UnitMargin) else net
    return inner if isinstance(inner, ClusterProbe) else None


def attach_head(encoder: nn.Module, width: int, num_classes: int, *, seed: int) -> nn.Module:
    """A classifier with a fresh last layer on embeddings (N, ``width``); it takes ``encoder`` over."""
    head = random_linear(width, num_classes, seed=seed).to(next(encoder.parameters(), torch.zeros(())))
    return encoder.classifier(head) if isinstance(encoder, FeatureExtractor) else EncoderClassifier(encoder, head)
