"""The public function ``assay.audit``."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.nulls import TOY_DETECTORS, null_of
from support.toys import SHAPE, Toy, artifact_of, toy
from torch import Tensor, nn

import assay
from assay.auditing.api import audit
from assay.auditing.calibrate import Calibration, score_clean_model
from assay.auditing.facts import MAX_LARGE_SAMPLES, MAX_SAMPLES, sample_limit
from assay.auditing.inputs import clean_samples
from assay.calibration.data_profile import data_profile
from assay.calibration.null import NullDistribution
from assay.calibration.reference import make_test_id
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.finding import Finding, Outcome
from assay.core.model import ImageSpec, digest_of_module
from assay.core.progress import Progress
from assay.core.result import Audit
from assay.detectors import DepthScan, LatentShift, NeuralCleanse, PatchScan, UniversalPerturbation
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.formats.normalization import UNKNOWN_NORMALIZATION
from assay.stages.variants import DEFAULT

FULL: dict[str, Any] = {"detectors": TOY_DETECTORS, "variant_names": ("full",)}


def audited(target: int | None, **options: Any) -> Audit:
    net, x, y = toy(4, target)
    return audit(net, (x, y), shape=SHAPE, **{"null": null_of(), **FULL, **options})


def test_audit_three_lines_backdoored() -> None:
    net, x, y = toy(4, 2)
    result = assay.audit(net, (x, y), shape=SHAPE, variant_names=("full",), null=null_of())
    assert result.verdict == "backdoored"
    assert result.target == 2
    assert result.data_samples == len(x)
    assert {f.detector for f in result.findings} >= {"neural-cleanse", "patch-scan"}


def test_audit_clean_model_clean() -> None:
    result = audited(None)
    assert result.verdict == "clean"
    assert result.target is None
    assert [v.name for v in result.variants] == ["full"]
    assert result.variants[0].accuracy == 1.0
    assert all(f.p_value is not None and len(f.null_scores) == 120 for f in result.findings)


def test_audit_same_seed_same_result() -> None:
    first, second, other = (audited(2, seed=seed) for seed in (0, 0, 1))
    assert [f.score for f in first.findings] == [f.score for f in second.findings]
    assert [f.score for f in first.findings] != [f.score for f in other.findings]
    assert (first.p_value, first.statistic, first.model.digest) == (
        second.p_value,
        second.statistic,
        second.model.digest,
    )


def test_audit_command_contains_all_options() -> None:
    quick: dict[str, Any] = {"detectors": TOY_DETECTORS[:1], "variant_names": ["full"], "null": null_of(2)}
    assert audited(2, seed=1, **quick).command == (
        "assay.audit(model, data, shape=(3, 8, 8), variant_names=('full',), detectors=detectors, null=null, seed=1)"
    )
    net, _, _ = toy(4, None)
    result = audit(net, shape=SHAPE, mean=[0.5, 0.5, 0.5], std=[1, 1, 1], budget=60.5, **quick)
    assert result.command == (
        "assay.audit(model, shape=(3, 8, 8), mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0), variant_names=('full',), "
        "detectors=detectors, budget=60.5, null=null, seed=0)"
    )


@pytest.mark.parametrize("training", [True, False])
def test_audit_user_model_unchanged(training: bool) -> None:
    net, x, y = toy(4, 2)
    net.train(training)
    net.head.weight.requires_grad_(False)
    before, images = digest_of_module(net), x.clone()
    audit(net, (x, y), shape=SHAPE, null=null_of(), variant_names=("full", "int8", "prune-50"), detectors=TOY_DETECTORS)
    assert digest_of_module(net) == before
    assert all(module.training == training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, True]
    assert all(p.grad is None for p in net.parameters())
    assert all(p.is_contiguous() for p in net.parameters())
    assert torch.equal(x, images)


def test_audit_torch_random_state_unchanged() -> None:
    net, x, y = toy(4, 2)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    audit(net, (x, y), shape=SHAPE, null=null_of(), **FULL)
    assert torch.equal(torch.rand(2), expected)


def test_audit_progress_rises_to_one() -> None:
    reported: list[tuple[str, float]] = []
    audited(
        None,
        detectors=(*TOY_DETECTORS, DepthScan()),
        variant_names=("full", "int8"),
        progress=lambda step, fraction: reported.append((step, fraction)),
    )
    fractions = [fraction for _, fraction in reported]
    assert fractions == sorted(fractions)
    assert fractions[0] < fractions[-1] == 1.0
    assert all("left" in step for step, fraction in reported if fraction < 1)
    steps = {step.partition(",")[0] for step, _ in reported}
    assert {"making full", "full: neural-cleanse", "making int8", "int8: depth-scan", "verdict"} <= steps
    assert "int8: latent-shift" not in steps


def test_audit_in_two_processes_gives_the_same_with_its_trigger() -> None:
    one, two = (audited(2, jobs=jobs, detectors=(NeuralCleanse(), PatchScan())) for jobs in (1, 2))
    assert (two.verdict, two.target, two.p_value) == (one.verdict, one.target, one.p_value)
    assert [finding.score for finding in two.findings] == [finding.score for finding in one.findings]
    assert two.trigger_sweep == one.trigger_sweep != ()
    assert "jobs=2" in two.command
    assert "jobs" not in one.command


def test_audit_without_a_process_is_an_error() -> None:
    with pytest.raises(UnusableInput, match="at least 1 process for the tests, got 0"):
        audited(2, jobs=0)


def test_audit_tiny_budget_inconclusive() -> None:
    result = audited(2, budget=1e-6, detectors=(NeuralCleanse(), UniversalPerturbation(), PatchScan()))
    assert result.verdict == "inconclusive"
    assert "budget" in result.reason
    assert all(f.outcome.status == "abstained" and "budget" in f.reason for f in result.findings)


def test_audit_empty_null_inconclusive() -> None:
    result = audited(2, null=NullDistribution("none", "", ()))
    assert result.verdict == "inconclusive"
    assert result.p_value is None
    assert all(f.p_value is None for f in result.findings)


@pytest.mark.parametrize("data", [None, (torch.zeros(0, *SHAPE), None)], ids=["none", "empty"])
def test_audit_without_data_inconclusive(data: Any) -> None:
    result = audit(toy(4, 2)[0], data, shape=SHAPE, null=null_of(), detectors=TOY_DETECTORS)
    assert result.verdict == "inconclusive"
    assert result.data_samples == 0
    assert all("clean samples" in f.reason for f in result.findings)
    assert [(v.name, v.reason != "") for v in result.variants] == [(name, name != "full") for name in DEFAULT]


def test_audit_unlabelled_images_backdoored() -> None:
    net, x, _ = toy(4, 2)
    result = audit(net, (x, None), shape=SHAPE, mean=(0,), std=(1,), null=null_of(), **FULL)
    assert result.verdict == "backdoored"
    assert result.variants[0].accuracy is None


def test_audit_unlabelled_without_normalization_inconclusive() -> None:
    net, x, _ = toy(4, 2)
    result = audit(net, (x, None), shape=SHAPE, null=null_of(), **FULL)
    assert result.verdict == "inconclusive"
    assert "neither labels nor a normalization are known" in result.reason
    assert UNKNOWN_NORMALIZATION in result.notes


def test_audit_probabilities_same_verdict_as_logits() -> None:
    net, x, y = toy(4, 2)
    sure = nn.Sequential(net, Scale(3.0), nn.Softmax(1))  # saturated: the largest probability hardly changes
    plain, soft = (audit(n, (x, y), shape=SHAPE, null=null_of(), **FULL) for n in (net, sure))
    assert soft.verdict == plain.verdict == "backdoored"
    assert soft.target == 2
    assert any("probabilities" in note for note in soft.notes)
    for one, other in zip(plain.findings, soft.findings, strict=True):
        if one.score is not None:
            assert other.score == pytest.approx(one.score, rel=0.2)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class NanOnBrightCorner(nn.Module):
    """Gives NaN for images with very bright pixels in a corner. No clean image has them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x[:, :, 6:, 6:].amax((1, 2, 3)) > 0.6
        return torch.where(bright[:, None], torch.nan, self.net(x))


def test_audit_nan_on_some_patterns_inconclusive() -> None:
    net, x, y = toy(4, None)
    detectors = (*TOY_DETECTORS, PatchScan())
    result = audit(
        NanOnBrightCorner(net), (x, y), shape=SHAPE, null=null_of(), detectors=detectors, variant_names=("full",)
    )
    assert [f.detector for f in result.findings if f.outcome is Outcome.INCOMPLETE] == ["patch-scan"]
    assert result.verdict == "inconclusive"
    assert "NaN" in result.reason


def test_audit_images_of_one_class_not_clean() -> None:
    net, x, y = toy(4, None)
    result = audit(net, (x[y == 1], y[y == 1]), shape=SHAPE, null=null_of(), **FULL)
    assert result.verdict != "clean"
    assert "one class" in " ".join(f.reason for f in result.findings)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_audit_few_images_inconclusive(count: int) -> None:
    net, x, y = toy(4, None)
    result = audit(net, (x[:count], y[:count]), shape=SHAPE, null=null_of(), detectors=TOY_DETECTORS)
    assert result.verdict == "inconclusive"
    assert f"{count} clean samples are too few" in result.reason or "one class" in result.reason


def test_audit_labels_of_another_task_inconclusive() -> None:
    net, x, y = toy(4, None)
    result = audit(net, (x, (y + 1) % 4), shape=SHAPE, null=null_of(), **FULL)
    assert result.verdict == "inconclusive"
    assert "0%" in result.reason


X, Y = torch.rand(6, *SHAPE), torch.arange(6) % 4

UNUSABLE = {
    "another shape": ((torch.rand(6, 3, 9, 9), Y), "expected images of the model's shape (3, 8, 8)"),
    "one image": ((X[0], None), "expected images of the model's shape"),
    "whole numbers": (((255 * X).int(), Y), "divide by 255"),
    "normalized": ((4 * X - 2, Y), "in [0, 1]"),
    "NaN": ((X / torch.tensor(0.0) * 0, Y), "in [0, 1]"),
    "yes and no": ((X, Y == 1), "whole numbers"),
    "too few labels": ((X, Y[:4]), "a label for each of 6 samples"),
    "several labels": ((X, nn.functional.one_hot(Y) + nn.functional.one_hot(3 - Y)), "labels of shape (6, 4)"),
    "float labels": ((X, Y + 0.5), "int64"),
    "more classes": ((X, Y + 1), "labels from 0 to 3"),
    "negative labels": ((X, Y - 1), "labels from 0 to 3"),
}


@pytest.mark.parametrize(("data", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_audit_unusable_data_one_line_error(data: Any, message: str) -> None:
    with pytest.raises(UnusableInput) as error:
        audit(toy(4, None)[0], data, shape=SHAPE, null=null_of(), **FULL)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_audit_unusable_model_one_line_error() -> None:
    for net, shape, message in (
        (toy(4, None)[0], None, "shape=(C, H, W) is needed"),
        (toy(4, None)[0], (3, 9, 9), "does not run"),
        (nn.Flatten(0), SHAPE, "expected logits"),
    ):
        with pytest.raises(UnusableInput) as error:
            audit(net, (X, Y), shape=shape, **FULL)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_audit_task_uses_calibration_split() -> None:
    net, x, y = toy(4, None)
    task = Task("shapes", {"train": Split(x[:8], y[:8]), "calibration": Split(x[8:40], y[8:40])}, tuple("abcd"))
    result = audit(artifact_of(net, 4), task, null=null_of(), **FULL)
    assert (result.data_name, result.data_samples) == ("shapes", 32)


def test_audit_many_samples_limited() -> None:
    net, x, y = toy(4, None)
    result = audit(net, (x.repeat(10, 1, 1, 1), y.repeat(10)), shape=SHAPE, null=null_of(), **FULL)
    assert result.data_samples == MAX_SAMPLES


def test_large_images_are_sampled_less() -> None:
    assert sample_limit(ImageSpec((3, 64, 64))) == MAX_SAMPLES
    assert sample_limit(ImageSpec((3, 96, 96))) == MAX_LARGE_SAMPLES
    large = artifact_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval(), 4)
    large = replace(large, inputs=ImageSpec((3, 96, 96)))
    assert len(clean_samples(Split(torch.rand(200, 3, 96, 96), None), large, seed=0).split) == MAX_LARGE_SAMPLES


def test_audit_broken_variant_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(
        name: str, artifact: assay.Artifact, clean: Split, *, seed: int, predictions: torch.Tensor
    ) -> tuple[assay.Artifact, None]:
        net = copy.deepcopy(artifact.module)
        nn.init.zeros_(net.head.weight)
        return artifact.with_module(net), None

    monkeypatch.setattr("assay.stages.variants.make_and_run", broken)
    result = audited(None, variant_names=("full", "prune-50"))
    assert [v.reason != "" for v in result.variants] == [False, True]
    assert "compression broke it" in result.variants[1].reason
    assert result.variants[1].agreement == 0.25
    assert {f.variant for f in result.findings} == {"full"}
    assert "prune-50" in " ".join(result.limits)
    assert result.verdict == "clean"


def test_audit_crashing_variant_others_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(
        name: str, artifact: assay.Artifact, clean: Split, *, seed: int, predictions: torch.Tensor
    ) -> tuple[assay.Artifact, None]:
        raise RuntimeError("view size is not compatible\nand pages more")

    monkeypatch.setattr("assay.stages.variants.make_and_run", crash)
    result = audited(None, variant_names=("full", "prune-50"))
    assert result.variants[1].reason == "it could not be made: view size is not compatible"
    assert result.verdict == "clean"


def test_audit_unavailable_variant_has_reason() -> None:
    net, x, _ = toy(4, None)
    result = audit(
        net, (x, None), shape=SHAPE, null=null_of(), detectors=TOY_DETECTORS, variant_names=("full", "fine-tuned")
    )
    assert "labels" in result.variants[1].reason
    assert {f.variant for f in result.findings} == {"full"}


@pytest.mark.parametrize(
    ("names", "detectors"), [(("int8",), (LatentShift(),)), (("full",), ())], ids=["no variant for it", "none"]
)
def test_audit_no_tests_inconclusive(names: tuple[str, ...], detectors: tuple[Detector, ...]) -> None:
    assert audited(None, variant_names=names, detectors=detectors).verdict == "inconclusive"


def test_audit_unknown_variant_error() -> None:
    with pytest.raises(UnusableInput, match="int9"):
        audited(None, variant_names=("int9",))


class Recorder(Detector):
    """Detector that records its inputs."""

    name = "recorder"
    title = "for tests"
    needs = Requirement.NONE

    def __init__(self) -> None:
        self.got: list[tuple[assay.Artifact, Split]] = []

    def run(self, artifact: assay.Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        self.got.append((artifact, clean))
        return Finding(self.name, Outcome.SCORED, score=0.0)


def test_audit_detector_gets_variant_and_clean_samples() -> None:
    recorder = Recorder()
    audited(2, detectors=(recorder,), variant_names=("full", "bf16"))
    (full, clean), (rounded, same) = recorder.got
    assert full.digest != rounded.digest
    assert torch.equal(clean.x, same.x)


def test_score_clean_model_has_facts_for_matching() -> None:
    net, x, y = toy(4, None)
    settings = Calibration(("full",), TOY_DETECTORS)
    model = score_clean_model(artifact_of(net, 4), Split(x, y), settings, origin="toy", family="toys")
    assert set(model.scores) == {make_test_id("full", d.name) for d in TOY_DETECTORS}
    assert all(np.isfinite(score.value) for score in model.scores.values())
    assert (model.origin, model.family, model.accuracy) == ("toy", "toys", 1.0)
    assert model.data == pytest.approx(data_profile(x), rel=1e-4)  # the samples are in another order


class NanToy(Toy):
    """Gives NaN for every input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.0 * 0.0


def test_audit_nan_logits_error() -> None:
    net = NanToy(torch.ones(4, *SHAPE))
    with pytest.raises(UnusableInput, match="NaN"):
        audit(net, (X, Y), shape=SHAPE, **FULL)
