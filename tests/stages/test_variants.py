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


def test_names_come_apart_and_only_once() -> None:
    assert variants.parse("full, int8 ,full") == ("full", "int8")
    assert variants.parse(("prune-2:4", "full")) == ("prune-2:4", "full")
    assert variants.parse(list(variants.VARIANTS)) == tuple(variants.VARIANTS)
    assert set(variants.DEFAULT) <= set(variants.VARIANTS)
    assert variants.DEFAULT[0] == "full"


@pytest.mark.parametrize("names", ["", "full,", "int9", "prune-0", "filters-100", ("full", "Int8"), ()])
def test_unknown_names_are_refused_with_the_known_ones(names: str | tuple[str, ...]) -> None:
    with pytest.raises(UnusableInput, match=r"expected.*variant.* out of full, bf16.*; got"):
        variants.parse(names)


def test_as_given_is_the_artifact_itself() -> None:
    assert variants.make("full", BUILD.artifact, CLEAN, seed=0) is BUILD.artifact


@pytest.mark.parametrize("name", [name for name in variants.VARIANTS if name != "full"])
def test_each_form_is_a_new_net_of_the_same_task(name: str) -> None:
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


def test_a_form_that_changes_nothing_is_none() -> None:
    for name in ("prune-2:4", "filters-30"):
        once = variants.make(name, BUILD.artifact, CLEAN, seed=0)
        assert once.digest != BUILD.artifact.digest
    perceptron = from_module(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), shape=(3, 8, 8))
    with pytest.raises(UnusableInput, match="nothing in it"):
        variants.make("filters-30", perceptron, CLEAN, seed=0)


def test_a_net_of_foreign_format_is_audited_as_it_is() -> None:
    foreign = replace(BUILD.artifact, format="onnx", differentiable=False)
    assert variants.make("full", foreign, CLEAN, seed=0) is foreign
    with pytest.raises(UnusableInput, match="onnx"):
        variants.make("int8", foreign, CLEAN, seed=0)


def test_fine_tuning_needs_labels() -> None:
    with pytest.raises(UnusableInput, match="labels"):
        variants.make("fine-tuned", BUILD.artifact, Split(CLEAN.x, None), seed=0)


@pytest.mark.parametrize("worse", ["repaired", "plain"])
def test_a_form_is_repaired_where_that_helps(worse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that breaks the net is left out; one that mends what the pruning broke is kept."""
    plain = PruneTwoFour()(Build(BUILD.artifact, BUILD.task), seed=0).artifact
    broken = replace(plain, module=tiny_build(seed=9).artifact.module)
    if worse == "repaired":
        monkeypatch.setattr(variants, "recalibrated", lambda net, x: broken.module)
        assert variants.make("prune-2:4", BUILD.artifact, CLEAN, seed=0).digest == plain.digest
        assert variants.make("prune-50", BUILD.artifact, CLEAN, seed=0).module is broken.module, (
            "as the reference models were"
        )
    else:
        monkeypatch.setattr(variants, "recalibrated", lambda net, x: BUILD.artifact.module)
        assert variants.make("prune-2:4", BUILD.artifact, CLEAN, seed=0).module is BUILD.artifact.module


def test_a_net_without_layers_to_round_has_no_such_form() -> None:
    foreign = BUILD.artifact.with_module(torch.nn.Flatten())
    with pytest.raises(UnusableInput, match="convolutions or linear layers"):
        variants.make("int4", foreign, CLEAN, seed=0)
