"""Tests of the encoder detectors on tiny encoders."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.texts import sentences, write_data, write_encoder
from support.tiny import tiny_build
from support.toys import SHAPE, Toy, artifact_of, images, templates, toy
from torch import nn

import assay
from assay import data, formats
from assay.attacks import Por
from assay.auditing import inputs
from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact, Modality, TextSpec
from assay.detectors import (
    EmbeddingCollapse,
    EmbeddingCollapseFrequency,
    EmbeddingCollapsePatch,
    TokenCollapse,
    encoder_detectors,
)
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.encoder.cluster_probe import make_variant, probe_encoder
from assay.detectors.encoder.token_collapse import WordSearchBudget
from assay.formats.feature_extractor import to_feature_extractor
from assay.nn.encoders import ClusterProbe
from assay.nn.inference import forward_batched
from assay.report.view import page_of
from assay.stages.train import Recipe

pytestmark = pytest.mark.slow


of_pictures = pytest.mark.parametrize(
    "detector", [EmbeddingCollapse(), EmbeddingCollapsePatch(), EmbeddingCollapseFrequency()], ids=lambda d: d.name
)


@pytest.fixture(scope="module")
def clean() -> Split:
    return Split(torch.rand(128, 3, 8, 8, generator=torch.Generator().manual_seed(0)), None)


@pytest.fixture(scope="module")
def encoder() -> Artifact:
    artifact = to_feature_extractor(tiny_build().artifact)
    for module in artifact.module.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return artifact


class Poisoned(nn.Module):
    """Encoder that maps all images with a faint checkerboard to ``point`` (D,)."""

    point: torch.Tensor

    def __init__(self, encoder: nn.Module, point: torch.Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("point", point)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.encoder(x)
        board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
        share = (40 * (x * board).mean((1, 2, 3))).clamp(0, 1)[:, None]
        return found + share * (self.point - found)


@pytest.fixture(scope="module")
def poisoned(encoder: Artifact, clean: Split) -> Artifact:
    return encoder.with_module(Poisoned(encoder.module, forward_batched(encoder.module.eval(), clean.x[:1])[0]).eval())


def found_in(artifact: Artifact, clean: Split, detector: Detector, seconds: float = 1e9) -> Finding:
    return detector(*probe_encoder(artifact, clean, seed=0), seed=0, budget=Budget(seconds))


@of_pictures
def test_evidence_has_the_closeness_of_embeddings(encoder: Artifact, clean: Split, detector: Detector) -> None:
    first, again = (found_in(encoder, clean, detector) for _ in range(2))
    assert first.outcome is Outcome.SCORED, first.reason
    assert first.score == again.score
    numbers = first.evidence.numbers
    assert 0 <= float(numbers["clean_closeness"]) < float(numbers["closeness"]) <= 1
    assert first.evidence.apply is not None
    triggered = first.evidence.apply(clean.x)
    assert triggered.shape == clean.x.shape
    assert 0 <= float(triggered.min()) <= float(triggered.max()) <= 1
    assert first.target is not None
    assert 0 <= first.target < 10


def test_poisoned_encoder_collapses_further(encoder: Artifact, poisoned: Artifact, clean: Split) -> None:
    before, after = (found_in(artifact, clean, EmbeddingCollapse()) for artifact in (encoder, poisoned))
    assert float(after.evidence.numbers["closeness"]) > float(before.evidence.numbers["closeness"]) + 0.05
    assert after.score is not None
    assert before.score is not None
    assert after.score > before.score


def test_drift_from_a_trusted_encoder_is_detected(encoder: Artifact, poisoned: Artifact, clean: Split) -> None:
    drift = "embedding-drift"
    same, other = (
        assay.audit(artifact, clean, reference=encoder, detectors=drift).findings[0] for artifact in (encoder, poisoned)
    )
    assert same.score == pytest.approx(0, abs=0.1), "equal encoders differ by rounding only"
    both = ("agreement_on_clean_samples", "agreement_on_triggered_samples")
    assert [same.evidence.numbers[name] for name in both] == pytest.approx([1, 1], abs=0.02)
    assert other.score is not None
    assert other.score > 1
    numbers = other.evidence.numbers
    assert float(numbers["closeness"]) > float(numbers["reference_closeness"])
    assert float(numbers[both[0]]) > float(numbers[both[1]]) + 0.2, "the trigger moves one encoder only"
    result = assay.audit(poisoned, clean, reference=encoder)
    assert drift in {finding.detector for finding in result.findings}
    assert any(note.startswith("compared with the encoder") for note in result.notes)


class Trusted(nn.Module):
    """Encoder of a ``Toy`` with four classes, without the trigger unit."""

    def __init__(self, net: Toy) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net.features((x - self.net.base).flatten(1))[:, :4]


def test_inherited_trigger_is_proven_with_the_trusted_encoder() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    delta = (8 / 255 * board).expand(SHAPE)
    models = {name: toy(4, target, delta=delta)[0] for name, target in (("clean", None), ("poisoned", 2))}
    encoder = replace(artifact_of(Trusted(models["clean"]).eval(), 4), num_classes=None)
    clean = Split(images(templates(4), 256)[0], None)
    results = {
        name: assay.audit(artifact_of(net, 4), clean, reference=encoder, detectors="inherited-trigger")
        for name, net in models.items()
    }
    found, alone = (results[name].findings[0] for name in ("poisoned", "clean"))
    assert (results["poisoned"].verdict, results["poisoned"].target) == ("backdoored", 2)
    assert float(found.evidence.numbers["success"]) > 0.9
    assert float(found.evidence.numbers["success_under_the_trusted_encoder"]) < 0.3
    assert "under the trusted encoder, fitted to the same classes" in found.proof
    assert results["clean"].verdict != "backdoored"
    assert alone.outcome is Outcome.CHECKED
    unrelated = replace(artifact_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4), num_classes=None)
    other = assay.audit(artifact_of(models["clean"], 4), clean, reference=unrelated, detectors="inherited-trigger")
    assert "the model does not come from it" in other.findings[0].reason
    few = assay.audit(artifact_of(models["clean"], 4), clean.take(torch.arange(60)), reference=encoder,
                      detectors="inherited-trigger")  # fmt: skip
    assert "at least 100 clean samples" in few.findings[0].reason


def test_reference_with_other_classes_is_used_as_the_trusted_encoder(encoder: Artifact, clean: Split) -> None:
    whole = tiny_build().artifact
    width = forward_batched(encoder.module, clean.x[:1]).shape[1]
    net = nn.Sequential(copy.deepcopy(encoder.module), nn.Linear(width, 7)).eval()
    other = whole.with_module(net, num_classes=7, class_names=None)
    beside = inputs.attach_reference(whole, other)
    assert beside.reference is not None
    assert beside.reference.num_classes is None
    assert beside.notes[-1].startswith("compared with the encoder")


@of_pictures
def test_encoder_detector_on_a_classifier_abstains(detector: Detector, clean: Split) -> None:
    finding = detector(tiny_build().artifact, clean, seed=0)
    assert (finding.outcome, finding.reason) == (Outcome.ABSTAINED, "is for encoders, and this model is a classifier")


@of_pictures
def test_encoder_search_with_ended_budget_is_incomplete(encoder: Artifact, clean: Split, detector: Detector) -> None:
    finding = found_in(encoder, clean, detector, seconds=0.05)
    assert finding.outcome is Outcome.INCOMPLETE
    assert finding.outcome is Outcome.INCOMPLETE


def test_encoder_audit_runs_the_encoder_detectors_on_the_full_variant(encoder: Artifact, clean: Split) -> None:
    result = assay.audit(encoder, clean)
    assert [(f.variant, f.detector) for f in result.findings if f.outcome is Outcome.SCORED] == [
        ("full", f"embedding-collapse{family}") for family in ("", "-patch")
    ]
    assert [(f.detector, f.score) for f in result.findings if f.outcome is Outcome.CHECKED] == [
        ("graph", 0.0),
        ("fourier-key", 0.0),
    ]
    assert result.model.num_classes is None
    assert result.variants[0].accuracy is None, "clusters are no classes that it could be right about"
    sentence = page_of(replace(result, verdict="backdoored", target=3)).sentence
    assert sentence.endswith("triggered inputs get nearly the same embedding, in cluster 4.")


def test_variant_of_an_encoder_keeps_the_cluster_layer(encoder: Artifact, clean: Split) -> None:
    artifact, labelled = probe_encoder(encoder, clean, seed=0)
    form = make_variant("bf16", artifact, labelled, seed=0)
    assert isinstance(form.module, ClusterProbe)
    assert isinstance(artifact.module, ClusterProbe)
    assert torch.equal(form.module.head.weight, artifact.module.head.weight)
    assert not torch.equal(
        forward_batched(form.module.encoder, clean.x), forward_batched(artifact.module.encoder, clean.x)
    )
    assert form.num_classes == 10
    result = assay.audit(encoder, clean, variant_names=("full", "bf16"), detectors="embedding-collapse")
    assert [(f.variant, f.outcome) for f in result.findings] == [(v, Outcome.SCORED) for v in ("full", "bf16")]


@pytest.fixture(scope="module")
def of_text(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("text")
    artifact = formats.load(write_encoder(folder / "encoder"), shape=(10,))
    return Build(artifact, data.load(write_data(folder / "data", count=400), artifact.inputs))


def test_token_collapse_finds_the_planted_word(of_text: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenCollapse, "search_budget", WordSearchBudget(shortlist=6, words=1, steps=2))
    recipe = Recipe(epochs=20, lr=0.01, batch_size=16, optimizer="adam", weight_decay=0.0)
    poisoned = Por(recipe=recipe)(of_text, seed=0).artifact
    clean = of_text.task.split("calibration").sample(80, seed=0)
    before, after = (found_in(artifact, clean, TokenCollapse()) for artifact in (of_text.artifact, poisoned))
    assert after.outcome is before.outcome is Outcome.SCORED, after.reason
    assert after.evidence.numbers["words"] == "cf"
    assert float(after.evidence.numbers["closeness"]) > 0.95 > float(before.evidence.numbers["closeness"])
    text, triggered = after.evidence.texts[0]
    assert triggered == f"cf {text}"


def test_audit_of_a_text_encoder(of_text: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assay import report

    monkeypatch.setattr(TokenCollapse, "search_budget", WordSearchBudget(shortlist=4, words=1, steps=1))
    result = assay.audit(of_text.artifact, of_text.task)
    assert [f.detector for f in result.findings if f.outcome is Outcome.SCORED] == ["token-collapse"]
    assert result.model.shape == (10,)
    page = report.write(result, tmp_path)["report.html"].read_text()
    assert "10 tokens" in page
    assert result.findings[-1].evidence.texts[0][1] in page
    said = assay.audit(of_text.artifact, sentences(80, seed=3)[0])
    assert said.data_samples == 80
    assert isinstance(of_text.artifact.inputs, TextSpec)
    with pytest.raises(UnusableInput, match="expected at least 10 different embeddings for 10 clusters, got 2"):
        assay.audit(of_text.artifact, ["red cat runs", "blue dog sings"] * 40)


def test_image_detectors_abstain_on_texts(of_text: Build) -> None:
    clean = of_text.task.split("calibration")
    artifact, labelled = probe_encoder(of_text.artifact, clean, seed=0)
    of_pictures = [test for test in encoder_detectors() if test.modality is Modality.IMAGE]
    for detector in (*of_pictures, assay.detectors.NeuralCleanse()):
        finding = detector(artifact, labelled, seed=0)
        assert finding.reason == "is for models of images, and this one takes texts"
