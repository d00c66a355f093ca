"""The promises of ``detectors.base``: what no detector can get around."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.toys import SHAPE, artifact_of, images, templates, toy

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors import MaxMargin, NeuralCleanse, OffNearest, PatchScan, default_detectors
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.inversion.prepare import prepare


class Odd(Detector):
    """Does what it is told to."""

    name = "odd"
    title = "for tests"
    needs = Requirement.NONE

    def __init__(self, score: float | None = 1.0, *, needs: Requirement = Requirement.NONE) -> None:
        self.score = score
        self.needs = needs  # type: ignore[misc]

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        return Finding(self.name, Outcome.SCORED, score=self.score)


class Meddler(Odd):
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        with torch.no_grad():
            next(artifact.module.parameters()).add_(1e-3)
        return Finding(self.name, Outcome.SCORED, score=0.0)


class Shy(Odd):
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        raise Inconclusive("too little to go by")


class Dice(Odd):
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        assert not artifact.module.training
        return Finding(self.name, Outcome.SCORED, score=float(torch.rand(())))


@pytest.fixture
def audited() -> tuple[Artifact, Split]:
    net, x, y = toy(4, 2)
    return artifact_of(net, 4), Split(x, y)


EMPTY = Split(torch.zeros(0, *SHAPE), None)


def test_a_detector_that_changes_the_weights_is_caught(audited: tuple[Artifact, Split]) -> None:
    with pytest.raises(RuntimeError, match="odd changed the weights"):
        Meddler()(*audited)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None])
def test_a_score_that_is_no_number_has_failed(score: float | None, audited: tuple[Artifact, Split]) -> None:
    finding = Odd(score)(*audited)
    assert finding.outcome.status == "failed"
    assert finding.score is None
    assert "finite" in finding.reason


def test_an_abstention_keeps_its_reason(audited: tuple[Artifact, Split]) -> None:
    finding = Shy()(*audited)
    assert (finding.outcome.status, finding.reason, finding.score) == ("abstained", "too little to go by", None)


def test_the_harness_measures_the_time(audited: tuple[Artifact, Split]) -> None:
    assert Odd()(*audited).seconds > 0


def test_what_is_missing_is_said(audited: tuple[Artifact, Split]) -> None:
    artifact, clean = audited
    cases = [
        (Odd(needs=Requirement.GRADIENTS), replace(artifact, differentiable=False, format="onnx"), clean, "onnx"),
        (Odd(needs=Requirement.CLEAN_SAMPLES), artifact, EMPTY, "clean samples"),
        (Odd(needs=Requirement.WEIGHTS), replace(artifact, module=torch.nn.Flatten()), clean, "weights"),
        (Odd(), replace(artifact, num_classes=None), clean, "embeddings"),
    ]
    for detector, given, samples, word in cases:
        finding = detector(given, samples)
        assert finding.outcome.status == "abstained"
        assert word in finding.reason


def test_raw_weights_are_weights(audited: tuple[Artifact, Split]) -> None:
    artifact, clean = audited
    raw = replace(artifact, module=torch.nn.Flatten(), weights={"a": torch.ones(3).numpy()})
    assert Odd(needs=Requirement.WEIGHTS)(raw, clean).outcome.status == "ok"


def test_the_seed_is_the_harness_and_torchs_own_stays(audited: tuple[Artifact, Split]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    scores = [Dice()(*audited, seed=seed).score for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("training", [True, False])
def test_the_net_goes_back_in_the_mode_that_it_came_in(training: bool, audited: tuple[Artifact, Split]) -> None:
    artifact, clean = audited
    artifact.module.train(training)
    artifact.module.head.eval()
    for detector in (Dice(), Shy(), Odd(math.nan)):
        detector(artifact, clean)
        assert artifact.module.training == training
        assert not artifact.module.head.training


@pytest.mark.parametrize("detector", [PatchScan(), MaxMargin(), NeuralCleanse()], ids=lambda d: d.name)
def test_no_time_left_is_an_abstention(detector: Detector, audited: tuple[Artifact, Split]) -> None:
    finding = detector(*audited, budget=Budget(0))
    assert finding.outcome.status == "abstained"
    assert "budget" in finding.reason


def test_a_budget_never_runs_below_zero() -> None:
    assert Budget(-5).left() == 0
    assert Budget().left() == math.inf
    assert 0 < Budget(100).left() <= 100


@pytest.mark.parametrize("detector", default_detectors(), ids=lambda d: d.name)
def test_every_detector_keeps_the_house_rules(detector: Detector, audited: tuple[Artifact, Split]) -> None:
    """Same seed, same score; progress in [0, 1] and rising; nothing of the net changed."""
    artifact, clean = audited
    prepare(artifact.module, clean.x[:2])
    shares: list[float] = []
    finding = detector(artifact, clean, seed=1, progress=shares.append)
    assert finding.outcome.status in ("ok", "abstained")
    assert finding.detector == detector.name
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert detector(artifact, clean, seed=1).score == finding.score
    assert all(p.grad is None and p.requires_grad for p in artifact.module.parameters())
    assert finding.target is None or 0 <= finding.target < 4
    for picture in (finding.evidence.before, finding.evidence.after, finding.evidence.trigger, finding.evidence.mask):
        assert picture is None or (picture.min() >= 0 and picture.max() <= 1)


class Scaled(torch.nn.Module):
    """The same decisions with other logits: what a deployer's last layer may do, and an attacker's."""

    def __init__(self, net: torch.nn.Module, factor: float, offset: float) -> None:
        super().__init__()
        self.net, self.factor, self.offset = net, factor, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.net(x) + self.offset


ASKING = [
    detector for detector in default_detectors() if not isinstance(detector, OffNearest)
]  # which asks the weights


@pytest.mark.parametrize("detector", ASKING, ids=lambda d: d.name)
@pytest.mark.parametrize(("factor", "offset"), [(0.125, 0.0), (16.0, 0.0), (1.0, 4.0)])
def test_no_score_depends_on_the_scale_of_the_logits(
    detector: Detector, factor: float, offset: float, audited: tuple[Artifact, Split]
) -> None:
    artifact, clean = audited
    full = artifact_of(toy(4, None)[0], 4)
    if Requirement.TRUSTED_ENCODER in detector.needs:
        full, clean = replace(full, num_classes=None), Split(images(templates(4), 128)[0], None)
    plain = detector(replace(artifact, reference=full), clean, seed=1)
    scaled = detector(replace(artifact_of(Scaled(artifact.module, factor, offset), 4), reference=full), clean, seed=1)
    assert scaled.outcome.status == plain.outcome.status == "ok"
    assert scaled.score == pytest.approx(plain.score, rel=0.1, abs=0.1)
    assert scaled.target == plain.target
