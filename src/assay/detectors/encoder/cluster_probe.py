"""An encoder as a classifier, so that what tests classifiers can test it: clusters of the samples stand for classes.

A poisoned encoder draws every input with the trigger to one point, which is in one of the clusters. What the concept
is, and what classes a later task has, need not be known.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.nn.encoders import ClusterProbe
from assay.nn.inference import forward_batched
from assay.stages import variants

CLUSTERS = 10
FEWEST = 5 * CLUSTERS
"""Samples to make clusters of."""


def probed(encoder: Artifact, clean: Split, *, seed: int) -> tuple[Artifact, Split]:
    """``encoder`` with a last layer that names the nearest of ``CLUSTERS`` clusters, and the samples with theirs.

    Raises UnusableInput for too few samples, and where their embeddings are no numbers or all the same.
    """
    if len(clean) < FEWEST:
        raise UnusableInput(f"expected at least {FEWEST} samples to audit an encoder with, came {len(clean)}")
    with_gradients = encoder.with_gradients()
    embeddings = forward_batched(with_gradients.module.eval(), clean.x)
    if not embeddings.isfinite().all():
        raise UnusableInput(f"expected finite embeddings of the samples, {encoder.name} gives NaN or infinity")
    net = ClusterProbe(with_gradients.module, _nearest_cluster(embeddings, seed)).eval()
    labels = forward_batched(net, clean.x).argmax(1)
    names = tuple(f"cluster {number}" for number in range(1, CLUSTERS + 1))
    note = f"an encoder: {CLUSTERS} clusters of the samples stand for classes, and their labels are not used"
    artifact = replace(
        with_gradients, module=net, num_classes=CLUSTERS, class_names=names, notes=(*encoder.notes, note)
    )
    return artifact, Split(clean.x, labels)


def in_form(name: str, artifact: Artifact, clean: Split, *, seed: int) -> Artifact:
    """``artifact`` in the form called ``name`` (``variants.make``); the layer behind an encoder stays as it is."""
    probed = artifact.module
    if not isinstance(probed, ClusterProbe):
        return variants.make(name, artifact, clean, seed=seed)
    encoder = replace(artifact, module=probed.encoder, num_classes=None)
    found = variants.make(name, encoder, clean, seed=seed)
    return found.with_module(ClusterProbe(found.module, probed.head).eval(), num_classes=artifact.num_classes)


def _nearest_cluster(embeddings: Tensor, seed: int) -> nn.Linear:
    """The linear layer (D -> clusters) whose largest answer is the cluster nearest to an embedding (N, D).

    By direction, seen from the mean embedding: lengths differ from encoder to encoder, and with the trigger.
    """
    from sklearn.cluster import KMeans

    mean = embeddings.mean(0)
    length = (embeddings - mean).norm(dim=1).mean()
    if float(length) < 1e-6:
        raise UnusableInput("the encoder gives all samples the same embedding: there is nothing to tell apart")
    directions = F.normalize(embeddings - mean, dim=1)
    different = len(directions.mul(1e4).round().unique(dim=0))
    if different < CLUSTERS:
        raise UnusableInput(
            f"the samples have only {different} different embeddings, and {CLUSTERS} clusters are made of them: "
            "give samples of more kinds"
        )
    found = KMeans(CLUSTERS, n_init=4, random_state=seed).fit(directions.numpy())
    centres = torch.from_numpy(found.cluster_centers_).float()
    layer = nn.Linear(embeddings.shape[1], CLUSTERS)
    with torch.no_grad():
        layer.weight.copy_(2 * centres / length)
        layer.bias.copy_(-centres.square().sum(1) - layer.weight @ mean)
    return layer.requires_grad_(False)
