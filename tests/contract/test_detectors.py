"""Contract of all detectors in ``assay.detectors.__all__``: the same promises, with the exact outcome of each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from support.texts import write_data, write_encoder

from assay import data, detectors, formats
from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact, Modality, digest_of_module
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.encoder.cluster_probe import probe_encoder
from assay.detectors.requirement import Requirement
from assay.formats.feature_extractor import to_feature_extractor
from assay.graphs.export import to_onnx_int8
from assay.io.jsonable import jsonable
from assay.registry import all_detectors
from assay.stages.prune import PruneTwoFour

pytestmark = pytest.mark.slow


every_detector = pytest.mark.parametrize("detector", all_detectors(), ids=lambda detector: detector.name)


# Detectors that abstain for another reason than an unmet requirement: reason by detector.
NOT_QUANTIZED = {"off-nearest": "needs quantized weights"}
NO_LINEAR_LAYER = {"latent-shift": "linear layer"}


def completed(detector: Detector) -> Outcome:
    """Return the outcome of a run to the end on a clean model."""
    return Outcome.SCORED if detector.needs_null else Outcome.CHECKED


def unmet(detector: Detector) -> str:
    """Return part of the reason of an abstention on an image classifier with its original; empty without one."""
    if detector.modality is Modality.TEXT:
        return "is for models of texts"
    if Requirement.TRUSTED_ENCODER in detector.needs:
        return "needs a trusted copy of the encoder"
    if Requirement.ENCODER in detector.needs:
        return "is for encoders"
    return ""


def check(detector: Detector, finding: Finding, reason: str) -> None:
    """Assert an abstention with ``reason``, or a completed run if it is empty."""
    expected = Outcome.ABSTAINED if reason else completed(detector)
    assert finding.outcome is expected, finding.reason
    assert reason in finding.reason


@pytest.fixture(scope="module")
def compressed(build: Build) -> Artifact:
    """Return a pruned model with its original, so that no detector lacks a requirement."""
    return replace(PruneTwoFour()(build, seed=0).artifact, reference=build.artifact)


@pytest.fixture(scope="module")
def quantized(build: Build, clean: Split, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return an int8 file with its original; it has gradients through a surrogate."""
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    to_onnx_int8(build.artifact, clean.x, path, per_channel=True)
    return replace(formats.load(path), reference=build.artifact)


InputsOf = Callable[[Detector], tuple[Artifact, Split]]


@pytest.fixture(scope="module")
def inputs_of(
    compressed: Artifact, quantized: Artifact, clean: Split, tmp_path_factory: pytest.TempPathFactory
) -> InputsOf:
    """Return the function from a detector to a model and samples that meet its requirements."""
    assert compressed.reference is not None
    encoder = replace(to_feature_extractor(compressed), reference=to_feature_extractor(compressed.reference))
    more = Split(torch.cat([clean.x, clean.x.flip(3)]), None)
    most = Split(torch.cat([more.x, more.x.flip(2)]), None)
    folder = tmp_path_factory.mktemp("text")
    text_encoder = formats.load(write_encoder(folder / "encoder"))
    texts = data.load(write_data(folder / "data", count=400), text_encoder.inputs).split("calibration")

    def inputs(detector: Detector) -> tuple[Artifact, Split]:
        if detector.modality is Modality.TEXT:
            return probe_encoder(text_encoder, texts, seed=0)
        if Requirement.ENCODER in detector.needs:
            return probe_encoder(encoder, more, seed=0)
        if Requirement.TRUSTED_ENCODER in detector.needs:
            return replace(compressed, reference=to_feature_extractor(compressed)), most
        return (quantized if isinstance(detector, detectors.OffNearest) else compressed), clean

    return inputs


FindingOf = Callable[[Detector], Finding]


@pytest.fixture(scope="module")
def finding_of(inputs_of: InputsOf) -> FindingOf:
    """Return the function from a detector to its finding, which is made once for all tests."""
    findings: dict[str, Finding] = {}

    def finding(detector: Detector) -> Finding:
        if detector.name not in findings:
            findings[detector.name] = detector(*inputs_of(detector), seed=3)
        return findings[detector.name]

    return finding


def test_all_public_detectors_are_tested() -> None:
    kinds = {type(detector).__name__ for detector in all_detectors()}
    assert kinds == {name for name in detectors.__all__ if name[0].isupper()} - {"Detector"}
    run = (*detectors.default_detectors(), *detectors.encoder_detectors())
    assert {detector.name for detector in run} <= {detector.name for detector in all_detectors()}


@every_detector
def test_detector_has_a_valid_name_title_and_requirements(detector: Detector, finding_of: FindingOf) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", detector.name)
    assert detector.title
    assert isinstance(detector.needs, Requirement)
    assert finding_of(detector).detector == detector.name


@every_detector
def test_finding_has_a_finite_score_and_evidence_in_json(detector: Detector, finding_of: FindingOf) -> None:
    finding = finding_of(detector)
    assert finding.outcome is completed(detector), finding.reason
    assert finding.score is not None
    assert math.isfinite(finding.score)
    assert finding.target is None or 0 <= finding.target < (10 if Requirement.ENCODER in detector.needs else 4)
    json.dumps(jsonable({"numbers": dict(finding.evidence.numbers), "per_class": dict(finding.evidence.per_class)}))
    images = (finding.evidence.trigger, finding.evidence.mask, finding.evidence.before, finding.evidence.after)
    for image in images:
        assert image is None or (image.dtype == "float32" and 0 <= image.min() <= image.max() <= 1)


@every_detector
def test_detector_changes_neither_models_nor_the_random_generator(
    detector: Detector, compressed: Artifact, clean: Split
) -> None:
    assert compressed.reference is not None
    compressed.module.zero_grad()
    modules, state = (compressed.module, compressed.reference.module), torch.get_rng_state()
    before = [digest_of_module(module) for module in modules]
    detector(compressed, clean.take(torch.arange(8)), seed=0, budget=Budget(0.5))
    assert [digest_of_module(module) for module in modules] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not compressed.module.training
    assert all(parameter.grad is None for parameter in compressed.module.parameters())


@every_detector
def test_same_seed_gives_the_same_score(detector: Detector, inputs_of: InputsOf, finding_of: FindingOf) -> None:
    again = detector(*inputs_of(detector), seed=3)
    assert again.score == finding_of(detector).score
    assert again.target == finding_of(detector).target


@every_detector
def test_detector_without_clean_samples_abstains_if_it_needs_them(
    detector: Detector, compressed: Artifact, clean: Split
) -> None:
    finding = detector(compressed, Split(clean.x[:0], None), seed=0)
    reason = unmet(detector) if detector.modality is Modality.TEXT else ""
    if Requirement.CLEAN_SAMPLES in detector.needs and not reason:
        reason = "needs clean samples"
    check(detector, finding, reason or NOT_QUANTIZED.get(detector.name, ""))


@every_detector
def test_detector_without_gradients_abstains_if_it_needs_them(
    detector: Detector, compressed: Artifact, onnx_artifact: Artifact, clean: Split
) -> None:
    cause = "for a reason that is given"
    opaque = replace(onnx_artifact, surrogate=None, no_gradient_reason=cause, reference=compressed.reference)
    finding = detector(opaque, clean, seed=0)
    reason = unmet(detector) if detector.modality is Modality.TEXT else ""
    if Requirement.GRADIENTS in detector.needs and not reason:
        reason = cause
    check(detector, finding, reason or unmet(detector) or NOT_QUANTIZED.get(detector.name, ""))


@every_detector
def test_detector_runs_on_an_int8_file_with_gradients(detector: Detector, quantized: Artifact, clean: Split) -> None:
    finding = detector(quantized, clean, seed=0)
    check(detector, finding, unmet(detector) or NO_LINEAR_LAYER.get(detector.name, ""))


@every_detector
def test_detector_abstains_on_embeddings(detector: Detector, compressed: Artifact, clean: Split) -> None:
    finding = detector(replace(compressed, num_classes=None), clean)
    assert (finding.outcome, finding.score) == (Outcome.ABSTAINED, None)


@every_detector
def test_detector_runs_without_labels(detector: Detector, compressed: Artifact, clean: Split) -> None:
    finding = detector(compressed, Split(clean.x, None), seed=3)
    check(detector, finding, unmet(detector) or NOT_QUANTIZED.get(detector.name, ""))


@every_detector
def test_detector_without_time_ends_at_once(detector: Detector, compressed: Artifact, clean: Split) -> None:
    finding = detector(compressed, clean, seed=0, budget=Budget(0))
    reason = unmet(detector)
    assert finding.outcome is (Outcome.ABSTAINED if reason else Outcome.INCOMPLETE), finding.reason
    assert (reason or "the budget ended before it began") in finding.reason
    assert finding.seconds < 10
