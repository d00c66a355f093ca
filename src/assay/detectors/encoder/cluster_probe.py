"""Cluster probe: an encoder as a classifier, with clusters of the samples as classes, so that detectors can test it.

A poisoned encoder maps every input with the trigger to one point, inside one of the clusters. Neither the concept nor
the classes of a later task need to be known.
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
MIN_SAMPLES = 5 * CLUSTERS
MIN_MEAN_DISTANCE = 1e-6  # of the embeddings from their mean; below, all are the same
ROUNDING = 1e4  # directions that are equal in four digits count as one


def probe_encoder(encoder: Artifact, clean: Split, *, seed: int) -> tuple[Artifact, Split]:
    """Put a layer on an encoder that predicts the nearest cluster of the samples.

    Args:
        encoder: The encoder.
        clean: Clean samples; their labels are not used.
        seed: Seed of the clustering.

    Returns:
        The encoder as a classifier of ``CLUSTERS`` clusters, and the samples with their clusters as labels.

    Raises:
        UnusableInput: There are too few samples, or their embeddings are not finite or all the same.
    """
    if len(clean) < MIN_SAMPLES:
        raise UnusableInput(f"expected at least {MIN_SAMPLES} samples to audit an encoder, got {len(clean)}")
    with_gradients = encoder.with_gradients()
    embeddings = forward_batched(with_gradients.module.eval(), clean.x)
    if not embeddings.isfinite().all():
        raise UnusableInput(f"expected finite embeddings of the samples, got NaN or infinity from {encoder.name}")
    module = ClusterProbe(with_gradients.module, _nearest_cluster_layer(embeddings, seed)).eval()
    labels = forward_batched(module, clean.x).argmax(1)
    names = tuple(f"cluster {number}" for number in range(1, CLUSTERS + 1))
    note = f"an encoder: {CLUSTERS} clusters of the samples are its classes, and their labels are not used"
    artifact = replace(
        with_gradients, module=module, num_classes=CLUSTERS, class_names=names, notes=(*encoder.notes, note)
    )
    return artifact, Split(clean.x, labels)


def make_variant(name: str, artifact: Artifact, clean: Split, *, seed: int) -> Artifact:
    """Make a variant; of a cluster probe, a variant of the encoder under the same layer.

    Args:
        name: Name of the variant, as for ``variants.make``.
        artifact: The model.
        clean: Clean samples for calibration.
        seed: Seed of the compression.
    """
    probe = artifact.module
    if not isinstance(probe, ClusterProbe):
        return variants.make(name, artifact, clean, seed=seed)
    encoder = replace(artifact, module=probe.encoder, num_classes=None)
    variant = variants.make(name, encoder, clean, seed=seed)
    return variant.with_module(ClusterProbe(variant.module, probe.head).eval(), num_classes=artifact.num_classes)


def _nearest_cluster_layer(embeddings: Tensor, seed: int) -> nn.Linear:
    """Return the linear layer whose largest output is the nearest cluster.

    Distances are between directions from the mean embedding: lengths differ between encoders, and with the trigger.

    Args:
        embeddings: (N, D).
        seed: Seed of the clustering.

    Raises:
        UnusableInput: The samples have too few different embeddings.
    """
    from sklearn.cluster import KMeans

    mean = embeddings.mean(0)
    length = (embeddings - mean).norm(dim=1).mean()
    if float(length) < MIN_MEAN_DISTANCE:
        raise UnusableInput("expected different embeddings of the samples, got the same for all")
    directions = F.normalize(embeddings - mean, dim=1)
    different = len(directions.mul(ROUNDING).round().unique(dim=0))
    if different < CLUSTERS:
        raise UnusableInput(
            f"expected at least {CLUSTERS} different embeddings for {CLUSTERS} clusters, got {different}. "
            "Fix: give samples of more kinds"
        )
    clusters = KMeans(CLUSTERS, n_init=4, random_state=seed).fit(directions.numpy())
    centers = torch.from_numpy(clusters.cluster_centers_).float()
    layer = nn.Linear(embeddings.shape[1], CLUSTERS)
    with torch.no_grad():
        layer.weight.copy_(2 * centers / length)
        layer.bias.copy_(-centers.square().sum(1) - layer.weight @ mean)
    return layer.requires_grad_(False)
