"""Tests of the harness in ``detectors.base``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from support.toys import SHAPE, artifact_of, images, templates, toy
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, UnusableInput
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors import Graph, MaxMargin, NeuralCleanse, OffNearest, PatchScan, default_detectors
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.formats.torch_module import from_module
from assay.inversion.prepare import prepare

pytestmark = pytest.mark.slow


class GivenScore(Detector):
    """Detector with a given score and given requirements."""

    name = "given-score"
    title = "for tests"
    needs = Requirement.NONE

    def __init__(self, score: float | None = 1.0, *, needs: Requirement = Requirement.NONE) -> None:
        self.score = score
        self.needs = needs  # type: ignore[misc]

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        return Finding(self.name, Outcome.SCORED, score=self.score)


class WeightChanger(GivenScore):
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        with torch.no_grad():
            next(artifact.module.parameters()).add_(1e-3)
        return Finding(self.name, Outcome.SCORED, score=0.0)


class Abstaining(GivenScore):
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        raise Inconclusive("too little to go by")


class RandomDetector(GivenScore):
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        assert not artifact.module.training
        return Finding(self.name, Outcome.SCORED, score=float(torch.rand(())))


@pytest.fixture
def audited() -> tuple[Artifact, Split]:
    net, x, y = toy(4, 2)
    return artifact_of(net, 4), Split(x, y)


EMPTY = Split(torch.zeros(0, *SHAPE), None)


def test_changed_weights_raise_an_error(audited: tuple[Artifact, Split]) -> None:
    with pytest.raises(RuntimeError, match="given-score changed the weights"):
        WeightChanger()(*audited)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None])
def test_nonfinite_score_is_a_failure(score: float | None, audited: tuple[Artifact, Split]) -> None:
    finding = GivenScore(score)(*audited)
    assert finding.outcome is Outcome.FAILED
    assert finding.score is None
    assert "finite" in finding.reason


def test_abstention_keeps_its_reason(audited: tuple[Artifact, Split]) -> None:
    finding = Abstaining()(*audited)
    assert (finding.outcome, finding.reason, finding.score) == (Outcome.ABSTAINED, "too little to go by", None)


def test_finding_has_its_seconds(audited: tuple[Artifact, Split]) -> None:
    assert GivenScore()(*audited).seconds > 0


def test_unmet_requirement_is_an_abstention_with_a_reason(audited: tuple[Artifact, Split]) -> None:
    artifact, clean = audited
    cases = [
        (
            GivenScore(needs=Requirement.GRADIENTS),
            replace(artifact, differentiable=False, format="onnx"),
            clean,
            "onnx",
        ),
        (GivenScore(needs=Requirement.CLEAN_SAMPLES), artifact, EMPTY, "clean samples"),
        (GivenScore(needs=Requirement.WEIGHTS), replace(artifact, module=torch.nn.Flatten()), clean, "weights"),
        (GivenScore(), replace(artifact, num_classes=None), clean, "embeddings"),
    ]
    for detector, given, samples, word in cases:
        finding = detector(given, samples)
        assert finding.outcome is Outcome.ABSTAINED
        assert word in finding.reason


def test_weights_of_a_file_meet_the_weights_requirement(audited: tuple[Artifact, Split]) -> None:
    artifact, clean = audited
    raw = replace(artifact, module=torch.nn.Flatten(), weights={"a": torch.ones(3).numpy()})
    assert GivenScore(needs=Requirement.WEIGHTS)(raw, clean).outcome is Outcome.SCORED


def test_seed_sets_the_score_and_not_the_global_generator(audited: tuple[Artifact, Split]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    scores = [RandomDetector()(*audited, seed=seed).score for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("training", [True, False])
def test_module_mode_is_restored(training: bool, audited: tuple[Artifact, Split]) -> None:
    artifact, clean = audited
    artifact.module.train(training)
    artifact.module.head.eval()
    for detector in (RandomDetector(), Abstaining(), GivenScore(math.nan)):
        detector(artifact, clean)
        assert artifact.module.training == training
        assert not artifact.module.head.training


@pytest.mark.parametrize("detector", [PatchScan(), MaxMargin(), NeuralCleanse()], ids=lambda d: d.name)
def test_spent_budget_is_incomplete(detector: Detector, audited: tuple[Artifact, Split]) -> None:
    finding = detector(*audited, budget=Budget(0))
    assert finding.outcome is Outcome.INCOMPLETE
    assert "budget" in finding.reason


def test_unknown_precision_ends_the_audit(audited: tuple[Artifact, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_PRECISION", "float16")
    with pytest.raises(UnusableInput, match="ASSAY_PRECISION"):
        GivenScore()(*audited)


def test_budget_is_never_negative() -> None:
    assert Budget(-5).left() == 0
    assert Budget().left() == math.inf
    assert 0 < Budget(100).left() <= 100


@pytest.mark.parametrize("detector", default_detectors(), ids=lambda d: d.name)
def test_detector_is_deterministic_and_changes_nothing(detector: Detector, audited: tuple[Artifact, Split]) -> None:
    """Same seed, same score; progress rises within [0, 1]; parameters and gradients stay unchanged."""
    artifact, clean = audited
    prepare(artifact.module, clean.x[:2])
    fractions: list[float] = []
    finding = detector(artifact, clean, seed=1, progress=fractions.append)
    assert finding.outcome.completed or finding.outcome is Outcome.ABSTAINED, finding.reason
    assert finding.detector == detector.name
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert detector(artifact, clean, seed=1).score == finding.score
    assert all(p.grad is None and p.requires_grad for p in artifact.module.parameters())
    assert finding.target is None or 0 <= finding.target < 4
    for image in (finding.evidence.before, finding.evidence.after, finding.evidence.trigger, finding.evidence.mask):
        assert image is None or (image.min() >= 0 and image.max() <= 1)


class Scaled(torch.nn.Module):
    """Same predictions with scaled logits, as a deployer or an attacker may change the last layer."""

    def __init__(self, net: torch.nn.Module, factor: float, offset: float) -> None:
        super().__init__()
        self.net, self.factor, self.offset = net, factor, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.net(x) + self.offset


ASKING = [
    detector for detector in default_detectors() if not isinstance(detector, OffNearest)
]  # which asks the weights


def find(detector: Detector, change: Callable[[nn.Module], nn.Module]) -> Finding:
    """Return the finding on a model with a backdoor after ``change``."""
    (net, x, y), full = toy(4, 2), artifact_of(toy(4, None)[0], 4)
    clean = Split(x, y)
    if Requirement.TRUSTED_ENCODER in detector.needs:
        full, clean = replace(full, num_classes=None), Split(images(templates(4), 128)[0], None)
    return detector(replace(artifact_of(change(net), 4), reference=full), clean, seed=1)


@pytest.fixture(scope="module")
def plain() -> dict[str, Finding]:
    """Return the finding of each detector with the logits as they are."""
    return {detector.name: find(detector, lambda net: net) for detector in ASKING}


@pytest.mark.parametrize("detector", ASKING, ids=lambda d: d.name)
@pytest.mark.parametrize(("factor", "offset"), [(0.125, 0.0), (16.0, 0.0), (1.0, 4.0)])  # outside: one trace for each
def test_score_is_independent_of_the_logit_scale(
    detector: Detector, factor: float, offset: float, plain: dict[str, Finding]
) -> None:
    scaled, expected = find(detector, lambda net: Scaled(net, factor, offset)), plain[detector.name]
    assert scaled.outcome is expected.outcome
    assert scaled.score == pytest.approx(expected.score, rel=0.1, abs=0.1)
    assert scaled.target == expected.target


class Counting(nn.Module):
    """A model with a counter of its calls among its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x.flatten(1))


def test_model_that_changes_itself_is_not_measurable() -> None:
    artifact = from_module(Counting(), shape=(3, 8, 8))
    finding = Graph()(artifact, Split(torch.rand(32, 3, 8, 8), None))
    assert finding.outcome is Outcome.ABSTAINED
    assert finding.unmeasurable
    assert "changes its own numbers" in finding.reason
