"""Tests of the deployment variants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.tiny import tiny_build
from torch import nn

from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.formats.torch_module import from_module
from assay.stages import variants
from assay.stages.prune import PruneTwoFour

BUILD = tiny_build()
CLEAN = BUILD.task.split("train")


def test_parse_splits_names_without_duplicates() -> None:
    assert variants.parse("full, int8 ,full") == ("full", "int8")
    assert variants.parse(("prune-2:4", "full")) == ("prune-2:4", "full")
    assert variants.parse(list(variants.VARIANTS)) == tuple(variants.VARIANTS)
    assert set(variants.DEFAULT) <= set(variants.VARIANTS)
    assert variants.DEFAULT[0] == "full"


@pytest.mark.parametrize("names", ["", "full,", "int9", "prune-0", "filters-100", ("full", "Int8"), ()])
def test_parse_unknown_name_raises_with_known_names(names: str | tuple[str, ...]) -> None:
    with pytest.raises(UnusableInput, match=r"expected.*variant.* out of full, bf16.*got"):
        variants.parse(names)


def test_make_full_returns_the_artifact() -> None:
    assert variants.make("full", BUILD.artifact, CLEAN, seed=0) is BUILD.artifact


@pytest.mark.parametrize("name", [name for name in variants.VARIANTS if name != "full"])
def test_make_returns_a_new_model_of_the_same_task(name: str) -> None:
    build = tiny_build()
    before = digest_of_module(build.artifact.module)
    made = variants.make(name, build.artifact, CLEAN, seed=0)
    assert digest_of_module(build.artifact.module) == before
    assert made.digest == digest_of_module(made.module) != before
    assert made.num_classes == build.artifact.num_classes
    with torch.no_grad():
        logits, original = made.module(CLEAN.x[:8]), build.artifact.module(CLEAN.x[:8])
    assert logits.shape == original.shape
    assert not torch.equal(logits, original)
    assert variants.make(name, build.artifact, CLEAN, seed=0).digest == made.digest


def test_make_variant_without_change_raises() -> None:
    for name in ("prune-2:4", "filters-30"):
        once = variants.make(name, BUILD.artifact, CLEAN, seed=0)
        assert once.digest != BUILD.artifact.digest
    perceptron = from_module(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), shape=(3, 8, 8))
    with pytest.raises(UnusableInput, match="nothing to compress"):
        variants.make("filters-30", perceptron, CLEAN, seed=0)


def test_make_onnx_model_raises_except_for_full() -> None:
    other_format = replace(BUILD.artifact, format="onnx", differentiable=False)
    assert variants.make("full", other_format, CLEAN, seed=0) is other_format
    with pytest.raises(UnusableInput, match="onnx"):
        variants.make("int8", other_format, CLEAN, seed=0)


def test_make_fine_tuned_without_labels_raises() -> None:
    with pytest.raises(UnusableInput, match="labels"):
        variants.make("fine-tuned", BUILD.artifact, Split(CLEAN.x, None), seed=0)


@pytest.mark.parametrize("worse", ["recalibrated", "compressed"])
def test_make_if_better_recalibrates_only_on_higher_agreement(worse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recalibration is skipped if it lowers the agreement with the original model."""
    plain = PruneTwoFour()(Build(BUILD.artifact, BUILD.task), seed=0).artifact
    broken = replace(plain, module=tiny_build(seed=9).artifact.module)
    if worse == "recalibrated":
        monkeypatch.setattr(variants, "recalibrate_batchnorm", lambda net, x: broken.module)
        assert variants.make("prune-2:4", BUILD.artifact, CLEAN, seed=0).digest == plain.digest
        assert variants.make("prune-50", BUILD.artifact, CLEAN, seed=0).module is broken.module, (
            "magnitude pruning always recalibrates"
        )
    else:
        monkeypatch.setattr(variants, "recalibrate_batchnorm", lambda net, x: BUILD.artifact.module)
        assert variants.make("prune-2:4", BUILD.artifact, CLEAN, seed=0).module is BUILD.artifact.module


def test_make_int4_without_layers_raises() -> None:
    other_format = BUILD.artifact.with_module(torch.nn.Flatten())
    with pytest.raises(UnusableInput, match="convolutions or linear layers"):
        variants.make("int4", other_format, CLEAN, seed=0)


def test_the_predictions_of_the_model_do_not_change_a_variant() -> None:
    predictions = variants.predict(BUILD.artifact.module, CLEAN.x)
    for name in ("prune-2:4", "filters-30"):
        made, outputs = variants.make_and_run(name, BUILD.artifact, CLEAN, seed=0, predictions=predictions)
        assert made.digest == variants.make(name, BUILD.artifact, CLEAN, seed=0).digest
        with torch.no_grad():
            assert outputs is None or torch.equal(outputs, made.module(CLEAN.x))


@pytest.mark.parametrize(("wrong", "errors", "passes"), [(0, 1, 64), (20, 5, 8), (20, 0, 0), (20, 20, 24)])
def test_errors_are_counted_no_further_than_needed(
    wrong: int, errors: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predictions = torch.zeros(64).long()

    def first(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        del model
        seen.append(len(x))
        return torch.zeros(len(x)).long()

    monkeypatch.setattr(variants, "predict", first)
    monkeypatch.setattr(variants, "DECISION_BATCH", 8)
    predictions[:wrong] = 1
    assert variants._has_errors(BUILD.artifact, CLEAN.x, predictions, errors) == (wrong >= errors)
    assert sum(seen) == passes
