from __future__ import annotations

from dataclasses import replace

from support.toys import artifact_of, toy

from assay.auditing.plan import Plan, plan_of, usual
from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score, make_test_id
from assay.core.model import Artifact
from assay.detectors import CompressionGap, DepthScan, LatentShift
from assay.stages import variants

GIVEN = artifact_of(toy(4, None)[0], 4)
TESTS = (CompressionGap(), LatentShift())


def null_on(*tests: str) -> NullDistribution:
    return NullDistribution("n", "", (CleanReferenceModel({test: Score(1.0) for test in tests}),))


def cells(plan: Plan) -> list[str]:
    return [make_test_id(form, detector.name) for form, detector in plan.tests]


def test_what_nobody_could_compare_is_not_run_unless_it_is_asked_for() -> None:
    """The gap between the full model and its forms takes a search a form."""

    def usually(null: NullDistribution | None, given: Artifact = GIVEN) -> list[str]:
        return cells(usual(plan_of(given, ("full", "int8"), TESTS), null))

    assert usually(null_on("full/latent-shift")) == ["full/latent-shift"]
    for null in (None, NullDistribution("none", "", ()), null_on("int8/compression-gap")):
        assert usually(null) == ["full/latent-shift", "int8/compression-gap"]
    beside = replace(GIVEN, reference=GIVEN)
    assert usually(null_on("full/latent-shift"), beside) == ["full/compression-gap", "full/latent-shift"]
    assert cells(plan_of(GIVEN, ("full", "int8"), TESTS)) == ["full/latent-shift", "int8/compression-gap"]


def test_forms_that_are_there_for_the_gap_are_not_made_without_it() -> None:
    whole = plan_of(GIVEN, variants.DEFAULT, (DepthScan(), CompressionGap()))
    without = usual(whole, null_on("full/depth-scan"))
    assert set(variants.DEFAULT) - set(without.forms) == variants.BESIDE
    both = usual(whole, null_on("int8-tensor/compression-gap"))
    assert [test.name for test in both.on("int8-tensor")] == ["compression-gap"]
    assert both.on("filters-30") == ()
    assert [test.name for test in both.on("int8")] == ["depth-scan"]


def test_what_somebody_chose_is_looked_at_with_all_that_there_is() -> None:
    plan = usual(plan_of(GIVEN, ("full", "int8-tensor"), (DepthScan(), CompressionGap())), null_on("full/depth-scan"))
    assert plan.forms == ("full", "int8-tensor")
    assert cells(plan) == ["full/depth-scan", "int8-tensor/depth-scan"]
