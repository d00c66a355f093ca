"""Tests of the cluster probe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.tiny import tiny_build
from torch import nn

import assay
from assay.auditing.calibrate import Calibration, score_clean_model
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.detectors import LatentShift, PatchScan
from assay.detectors.encoder.cluster_probe import CLUSTERS, probe_encoder
from assay.formats.feature_extractor import to_feature_extractor
from assay.nn.inference import forward_batched, predict


@pytest.fixture
def encoder() -> Artifact:
    return to_feature_extractor(tiny_build().artifact)


@pytest.fixture
def clean() -> Split:
    return Split(torch.rand(80, 3, 8, 8, generator=torch.Generator().manual_seed(0)), None)


def test_samples_get_their_nearest_cluster(encoder: Artifact, clean: Split) -> None:
    artifact, labelled = probe_encoder(encoder, clean, seed=0)
    assert artifact.num_classes == CLUSTERS
    assert labelled.y is not None
    assert torch.equal(predict(artifact.module, clean.x), labelled.y)
    assert len(labelled.y.unique()) >= CLUSTERS - 2
    e = forward_batched(encoder.module, clean.x)
    z = nn.functional.normalize(e - e.mean(0), dim=1)
    within = [
        float(torch.pdist(z[labelled.y == label]).mean())
        for label in labelled.y.unique()
        if (labelled.y == label).sum() > 1
    ]
    assert sum(within) / len(within) < float(torch.pdist(z).mean())
    again, _ = probe_encoder(encoder, clean, seed=0)
    assert again.module.head.weight.equal(artifact.module.head.weight)  # type: ignore[union-attr,operator]


def test_labels_are_not_used(encoder: Artifact, clean: Split) -> None:
    with_labels = Split(clean.x, torch.arange(len(clean)) % 3)
    assert torch.equal(*(probe_encoder(encoder, split, seed=0)[1].y for split in (clean, with_labels)))  # type: ignore[arg-type]


def test_encoder_audit_uses_no_classifier_null(encoder: Artifact, clean: Split) -> None:
    result = assay.audit(encoder, clean, variant_names=("full",), detectors=("latent-shift", "patch-scan"))
    assert (result.verdict, result.model.num_classes) == ("inconclusive", None)
    assert "too few reference models of similar accuracy on data like these" in result.reason
    assert any("10 clusters of the samples are its classes" in note for note in result.notes)
    assert all(finding.outcome.completed for finding in result.findings)
    features = assay.audit(
        tiny_build().artifact, clean, features=True, variant_names=("full",), detectors=("latent-shift", "patch-scan")
    )
    assert [finding.score for finding in features.findings] == [finding.score for finding in result.findings]
    assert "features=True" in features.command


def test_encoder_is_a_valid_reference_model(encoder: Artifact, clean: Split) -> None:
    found = score_clean_model(encoder, clean, Calibration(("full",), (LatentShift(), PatchScan())))
    assert set(found.scores) == {"full/latent-shift", "full/patch-scan"}


def test_samples_without_clusters_raise_an_error(encoder: Artifact, clean: Split) -> None:
    with pytest.raises(UnusableInput, match="expected at least 50 samples to audit an encoder, got 20"):
        probe_encoder(encoder, clean.take(torch.arange(20)), seed=0)

    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 5)

    with pytest.raises(UnusableInput, match="got the same for all"):
        probe_encoder(replace(encoder, module=Same()), clean, seed=0)
    with pytest.raises(
        UnusableInput, match=r"like model \(an encoder, inputs 3 x 8 x 8\), got another model: .* \(4 classes"
    ):
        assay.audit(encoder, clean, reference=tiny_build().artifact)
