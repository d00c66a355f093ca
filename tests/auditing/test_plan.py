"""Plan of an audit: variants and the tests on each."""

from __future__ import annotations

from dataclasses import replace

from support.toys import artifact_of, toy

from assay.auditing.facts import Plan
from assay.auditing.plan import execution_order, plan_all, without_useless_tests
from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score, make_test_id
from assay.core.model import Artifact
from assay.detectors import CompressionGap, DepthScan, FourierKeys, Graph, LatentShift, NeuralCleanse, PatchScan
from assay.stages import variants

MODEL = artifact_of(toy(4, None)[0], 4)
DETECTORS = (CompressionGap(), LatentShift())


def null_on(*tests: str) -> NullDistribution:
    """Return a null of one model with a score on each of ``tests``."""
    return NullDistribution("n", "", (CleanReferenceModel({test: Score(1.0) for test in tests}),))


def ids(plan: Plan) -> list[str]:
    return [make_test_id(variant, detector.name) for variant, detector in plan.tests]


def default_tests(null: NullDistribution | None, model: Artifact = MODEL) -> list[str]:
    return ids(without_useless_tests(plan_all(model, ("full", "int8"), DETECTORS), null))


def test_default_plan_comparison_without_reference_scores_left_out() -> None:
    assert default_tests(null_on("full/latent-shift")) == ["full/latent-shift"]


def test_default_plan_comparison_with_reference_scores_or_without_null_included() -> None:
    for null in (None, NullDistribution("none", "", ()), null_on("int8/compression-gap")):
        assert default_tests(null) == ["full/latent-shift", "int8/compression-gap"]


def test_default_plan_model_with_reference_compared_on_full_model() -> None:
    with_reference = replace(MODEL, reference=MODEL)
    assert default_tests(null_on("full/latent-shift"), with_reference) == ["full/compression-gap", "full/latent-shift"]


def test_full_plan_all_possible_tests_included() -> None:
    assert ids(plan_all(MODEL, ("full", "int8"), DETECTORS)) == ["full/latent-shift", "int8/compression-gap"]


def test_default_plan_variants_without_tests_not_made() -> None:
    everything = plan_all(MODEL, variants.DEFAULT, (DepthScan(), CompressionGap()))
    without = without_useless_tests(everything, null_on("full/depth-scan"))
    assert set(variants.DEFAULT) - set(without.variants) == variants.COMPARISON_ONLY
    both = without_useless_tests(everything, null_on("int8-tensor/compression-gap"))
    assert [test.name for test in both.detectors_on("int8-tensor")] == ["compression-gap"]
    assert both.detectors_on("filters-30") == ()
    assert [test.name for test in both.detectors_on("int8")] == ["depth-scan"]


def test_default_plan_chosen_variants_all_made() -> None:
    everything = plan_all(MODEL, ("full", "int8-tensor"), (DepthScan(), CompressionGap()))
    plan = without_useless_tests(everything, null_on("full/depth-scan"))
    assert plan.variants == ("full", "int8-tensor")
    assert ids(plan) == ["full/depth-scan", "int8-tensor/depth-scan"]


def test_execution_order_is_cheap_first_across_variants_and_graphs_last() -> None:
    detectors = (Graph(), FourierKeys(), NeuralCleanse(), PatchScan(), CompressionGap(), DepthScan())
    plan = plan_all(MODEL, ("full", "int8"), detectors)
    order = execution_order(plan, MODEL)
    assert [make_test_id(variant, detector.name) for variant, detector in order] == [
        "full/depth-scan",
        "full/patch-scan",
        "int8/depth-scan",
        "int8/patch-scan",
        "full/neural-cleanse",
        "int8/compression-gap",
        "full/fourier-key",
        "full/graph",
    ]
    assert ids(plan)[0] == "full/graph"  # the report keeps its order
    many = execution_order(plan, MODEL, longest_first=True)
    assert [make_test_id(variant, detector.name) for variant, detector in many][:4] == [
        "full/neural-cleanse",
        "full/graph",
        "full/fourier-key",
        "int8/compression-gap",
    ]
