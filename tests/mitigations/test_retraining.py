"""Mitigations that train: super-fine-tuning, and unlearning of what a search found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.texts import write_data, write_encoder
from support.tiny import tiny_build

from assay import data, formats
from assay.attacks import Por
from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.detectors import TokenCollapse, UniversalPerturbation
from assay.detectors.encoder.token_collapse import WordEffort
from assay.formats.feature_extractor import to_feature_extractor
from assay.mitigations import SuperFineTuning, TriggerUnlearning, UniversalTraining
from assay.mitigations.trigger_unlearning import _trigger
from assay.nn import metrics
from assay.nn.inference import forward_batched, predict
from assay.stages.train import Recipe, Train, cross_entropy

QUICK = Recipe(epochs=4, lr=0.01, batch_size=16, optimizer="adam", weight_decay=0.0, augment=False)


@pytest.fixture(scope="module")
def build() -> Build:
    recipe = Recipe(epochs=20, lr=0.01, batch_size=16, optimizer="adam", augment=False)
    return Train(recipe=recipe)(tiny_build(), seed=0)


@pytest.fixture(scope="module")
def encoder() -> Build:
    given = tiny_build()
    x = torch.rand(96, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    task = replace(given.task, splits={"calibration": Split(x, None)})
    return Build(to_feature_extractor(given.artifact), task)


def accuracy(build: Build) -> float:
    test = build.task.split("test")
    assert test.y is not None
    return float((predict(build.artifact.module, test.x) == test.y).float().mean())


def test_super_fine_tuning_goes_far_and_comes_back(build: Build) -> None:
    recipe = Recipe(epochs=1, lr=0.05, batch_size=16, augment=False)
    before = digest_of_module(build.artifact.module)
    first, again = (SuperFineTuning(recipe=recipe, low=0.01)(build, seed=0) for _ in range(2))
    assert digest_of_module(build.artifact.module) == before
    assert first.artifact.digest == again.artifact.digest != before
    assert first.artifact.planted == build.artifact.planted
    assert accuracy(first) > 0.6
    forgot = SuperFineTuning(recipe=replace(recipe, lr=2.0), restore=0)(build, seed=0)
    assert accuracy(forgot) < accuracy(first)
    assert SuperFineTuning(forget=0, restore=0)(build, seed=0).artifact.digest == before


def test_unlearning_makes_the_found_trigger_of_a_classifier_do_nothing(build: Build) -> None:
    clean = build.task.split("train")
    found = _trigger(build.artifact, clean, 0)
    finding = UniversalPerturbation()(build.artifact, clean, seed=0)
    cured = TriggerUnlearning(rounds=1, recipe=QUICK)(build, seed=0)

    def obey(net: torch.nn.Module) -> float:
        others = clean.y != finding.target
        return float((predict(net, found(clean.x[others])) == finding.target).float().mean())

    assert obey(cured.artifact.module) < 0.5 < obey(build.artifact.module)
    assert accuracy(cured) >= accuracy(build) - 0.1


def test_unlearning_puts_the_embeddings_of_an_encoder_back(encoder: Build) -> None:
    clean = encoder.task.split("calibration")
    found = _trigger(encoder.artifact, clean, 0)
    cured = TriggerUnlearning(rounds=1, recipe=replace(QUICK, epochs=20, lr=0.001, freeze_batchnorm=True))(
        encoder, seed=0
    )
    wanted = forward_batched(encoder.artifact.module, clean.x)
    centre = wanted.mean(0)

    def near(net: torch.nn.Module, x: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(forward_batched(net, x) - centre, wanted - centre).mean())

    assert near(cured.artifact.module, found(clean.x)) > near(encoder.artifact.module, found(clean.x))
    assert near(cured.artifact.module, clean.x) > 0.8
    assert cured.artifact.num_classes is None


def test_unlearning_takes_a_planted_word_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenCollapse, "effort", WordEffort(shortlist=6, words=1, steps=2))
    artifact = formats.load(write_encoder(tmp_path / "encoder"), shape=(10,))
    clean = Build(artifact, data.load(write_data(tmp_path / "data", count=400), artifact.inputs))
    poisoned = Por(recipe=replace(QUICK, epochs=20))(clean, seed=0)
    cured = TriggerUnlearning(rounds=1, recipe=replace(QUICK, epochs=20))(poisoned, seed=0)
    assert poisoned.secret is not None
    x = clean.task.split("test").x[:40]

    def obey(build: Build) -> float:
        assert poisoned.secret is not None
        return metrics.measure_encoder(build.artifact.module, artifact.module, x, poisoned.secret).attack_success.value

    assert obey(cured) < 0.5 < obey(poisoned)


def under_its_worst_pattern(build: Build, bound: float) -> float:
    """Accuracy on clean samples that all bear the one pattern, of up to ``bound``, that misleads the net most."""
    clean, net = build.task.split("train"), build.artifact.module.eval()
    pattern = torch.zeros_like(clean.x[:1], requires_grad=True)
    for _ in range(30):
        (slope,) = torch.autograd.grad(cross_entropy(net, (clean.x + pattern).clamp(0, 1), clean.y), pattern)
        pattern = (pattern + bound / 5 * slope.sign()).clamp(-bound, bound).detach().requires_grad_()
    return float((predict(net, (clean.x + pattern.detach()).clamp(0, 1)) == clean.y).float().mean())


def test_universal_training_leaves_no_pattern_that_misleads_as_many(build: Build) -> None:
    recipe, bound = replace(QUICK, epochs=40), 30
    plain = UniversalTraining(bound=1e-3, step=1e-3, recipe=recipe)(build, seed=0)
    cured = UniversalTraining(bound=bound, step=6, recipe=recipe)(build, seed=0)
    before, by_training, after = (under_its_worst_pattern(one, bound / 255) for one in (build, plain, cured))
    assert after > max(before, by_training) + 0.1
    assert accuracy(cured) > 0.6


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bound": 0}, "expected 0 < step <= bound"),
        ({"step": 20}, "expected 0 < step <= bound"),
        ({"patterns": 0}, "at least one pattern"),
    ],
)
def test_universal_training_refuses_what_makes_no_sense(settings: dict[str, int], said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        UniversalTraining(**settings)  # type: ignore[arg-type]


def test_what_cannot_be_cured_is_said(encoder: Build, build: Build) -> None:
    with pytest.raises(UnusableInput, match="expected a model that names classes"):
        SuperFineTuning()(encoder, seed=0)
    with pytest.raises(UnusableInput, match="expected a model that names classes"):
        UniversalTraining()(encoder, seed=0)
    with pytest.raises(UnusableInput, match="at least one round"):
        TriggerUnlearning(rounds=0)
    with pytest.raises(UnusableInput, match="expected numbers of cycles"):
        SuperFineTuning(low=0)
    opaque = replace(build, artifact=replace(build.artifact, differentiable=False))
    with pytest.raises(UnusableInput, match="weights in torch to tune"):
        SuperFineTuning()(opaque, seed=0)
    with pytest.raises(UnusableInput, match="no trigger to unlearn: universal-perturbation needs gradients"):
        TriggerUnlearning()(opaque, seed=0)
