"""One list of promises, and every detector of ``assay.detectors.__all__`` keeps all of them."""

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
from assay.core.finding import Finding
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

every_detector = pytest.mark.parametrize("detector", all_detectors(), ids=lambda detector: detector.name)


@pytest.fixture(scope="module")
def compressed(build: Build) -> Artifact:
    """A model whose full form is at hand, so that no detector lacks what it needs."""
    return replace(PruneTwoFour()(build, seed=0).artifact, reference=build.artifact)


@pytest.fixture(scope="module")
def quantized(build: Build, clean: Split, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    to_onnx_int8(build.artifact, clean.x, path, per_channel=True)
    return replace(formats.load(path), reference=build.artifact)


Suited = Callable[[Detector], tuple[Artifact, Split]]


@pytest.fixture(scope="module")
def suited(compressed: Artifact, quantized: Artifact, clean: Split, tmp_path_factory: pytest.TempPathFactory) -> Suited:
    """A model that has what a detector looks at, and samples for it."""
    assert compressed.reference is not None
    encoder = replace(to_feature_extractor(compressed), reference=to_feature_extractor(compressed.reference))
    more = Split(torch.cat([clean.x, clean.x.flip(3)]), None)
    folder = tmp_path_factory.mktemp("text")
    of_text = formats.load(write_encoder(folder / "encoder"))
    texts = data.load(write_data(folder / "data", count=400), of_text.inputs).split("calibration")

    def suits(detector: Detector) -> tuple[Artifact, Split]:
        if detector.modality is Modality.TEXT:
            return probe_encoder(of_text, texts, seed=0)
        if Requirement.ENCODER in detector.needs:
            return probe_encoder(encoder, more, seed=0)
        if Requirement.TRUSTED_ENCODER in detector.needs:
            return replace(compressed, reference=to_feature_extractor(compressed)), Split(
                torch.cat([more.x, more.x.flip(2)]), None
            )
        return (quantized if isinstance(detector, detectors.OffNearest) else compressed), clean

    return suits


@pytest.fixture(scope="module")
def findings(suited: Suited) -> dict[str, Finding]:
    """What each detector says, run once for all tests."""
    return {detector.name: detector(*suited(detector), seed=3) for detector in all_detectors()}


def test_the_list_is_whole() -> None:
    kinds = {type(detector).__name__ for detector in all_detectors()}
    assert kinds == {name for name in detectors.__all__ if name[0].isupper()} - {"Detector"}
    assert {detector.name for detector in detectors.default_detectors()} <= {d.name for d in all_detectors()}


@every_detector
def test_names_itself(detector: Detector, findings: dict[str, Finding]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", detector.name)
    assert detector.title
    assert detector.needs <= {"gradients", "clean", "weights", "reference", "encoder", "trusted-encoder"}
    assert findings[detector.name].detector == detector.name


@every_detector
def test_gives_a_finite_score_and_its_evidence_as_json(detector: Detector, findings: dict[str, Finding]) -> None:
    finding = findings[detector.name]
    assert finding.outcome.status == "ok", finding.reason
    assert finding.score is not None
    assert math.isfinite(finding.score)
    assert finding.target is None or 0 <= finding.target < (10 if Requirement.ENCODER in detector.needs else 4)
    json.dumps(jsonable({"numbers": dict(finding.evidence.numbers), "per_class": dict(finding.evidence.per_class)}))
    pictures = (finding.evidence.trigger, finding.evidence.mask, finding.evidence.before, finding.evidence.after)
    for picture in pictures:
        assert picture is None or (picture.dtype == "float32" and 0 <= picture.min() <= picture.max() <= 1)


@every_detector
def test_leaves_the_model_as_it_was(detector: Detector, compressed: Artifact, clean: Split) -> None:
    assert compressed.reference is not None
    compressed.module.zero_grad()
    nets, state = (compressed.module, compressed.reference.module), torch.get_rng_state()
    before = [digest_of_module(net) for net in nets]
    detector(compressed, clean.take(torch.arange(8)), seed=0, budget=Budget(0.5))
    assert [digest_of_module(net) for net in nets] == before
    assert torch.equal(torch.get_rng_state(), state), "the random generator of the caller moved"
    assert not compressed.module.training
    assert all(parameter.grad is None for parameter in compressed.module.parameters())


@every_detector
def test_same_seed_same_score(detector: Detector, suited: Suited, findings: dict[str, Finding]) -> None:
    again = detector(*suited(detector), seed=3)
    assert again.score == findings[detector.name].score
    assert again.target == findings[detector.name].target


@every_detector
def test_abstains_where_something_is_missing(
    detector: Detector, compressed: Artifact, onnx_artifact: Artifact, clean: Split
) -> None:
    none = Split(clean.x[:0], None)
    opaque = replace(
        onnx_artifact, surrogate=None, no_gradient_reason="for a reason that is given", reference=compressed.reference
    )
    cases = {"clean": (compressed, none), "gradients": (opaque, clean)}
    for need, (artifact, samples) in cases.items():
        finding = detector(artifact, samples, seed=0, budget=Budget(20))
        if need in detector.needs:
            assert finding.outcome.status == "abstained"
            known = "for a reason that is given", f"is for models of {Modality.TEXT}s"
            assert need != "gradients" or any(why in finding.reason for why in known)
        assert finding.outcome.status in ("ok", "abstained"), finding.reason
        assert finding.outcome.status == "ok" or len(finding.reason) > 10


@every_detector
def test_takes_an_onnx_file_with_gradients_in_torch(detector: Detector, quantized: Artifact, clean: Split) -> None:
    finding = detector(quantized, clean, seed=0, budget=Budget(30))
    known = "budget", "linear layer", "is for encoders", "is for models of texts", "encoder that this classifier was"
    assert finding.outcome.status == "ok" or any(why in finding.reason for why in known), finding.reason


@every_detector
def test_abstains_on_embeddings(detector: Detector, compressed: Artifact, clean: Split) -> None:
    finding = detector(replace(compressed, num_classes=None), clean)
    assert (finding.outcome.status, finding.score) == ("abstained", None)


@every_detector
def test_works_without_labels_or_abstains(
    detector: Detector, compressed: Artifact, clean: Split, findings: dict[str, Finding]
) -> None:
    finding = detector(compressed, Split(clean.x, None), seed=3, budget=Budget(30))
    assert finding.outcome.status in ("ok", "abstained"), finding.reason


@every_detector
def test_without_time_it_ends_at_once(detector: Detector, compressed: Artifact, clean: Split) -> None:
    finding = detector(compressed, clean, seed=0, budget=Budget(0))
    assert finding.outcome.status in ("ok", "abstained"), finding.reason
    assert finding.seconds < 10
