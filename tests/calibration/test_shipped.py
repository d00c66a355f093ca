"""Shipped null: a model planted with a patch is found against it, and the published model is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.toys import artifact_of, toy

import assay
from assay import data, formats
from assay.attacks import BadNets
from assay.auditing.plan import plan_all, without_useless_tests
from assay.calibration import file
from assay.calibration.null import FALSE_ALARM_RATE, MIN_FAMILY_SIZE, MIN_REFERENCE_MODELS
from assay.calibration.reference import make_test_id
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.model import Artifact
from assay.detectors import PatchScan, default_detectors
from assay.detectors.requirement import Requirement
from assay.stages.train import Recipe
from assay.stages.variants import COMPARISON_ONLY, DEFAULT
from assay.triggers import Patch

pytestmark = pytest.mark.slow


TARGET = 6


@pytest.fixture(scope="module")
def original(shared: Path) -> tuple[Artifact, Task]:
    artifact = formats.load(shared / "models/resnet20-cifar10/model.safetensors", arch="resnet20-cifar")
    return artifact, data.load(str(shared / "data/cifar10"), artifact.inputs, num_classes=10, limit=2000)


@pytest.fixture(scope="module")
def planted(original: tuple[Artifact, Task]) -> Artifact:
    attack = BadNets(
        patch=Patch(size=4, place="top-right", color="white"),
        target=TARGET,
        ratio=0.2,
        recipe=Recipe(epochs=6, lr=0.02),
    )
    return attack(Build(*original), seed=0).artifact


@pytest.mark.parametrize("bad", [False, True], ids=["as published", "planted"])
def test_shipped_null_third_party_model_judged(bad: bool, original: tuple[Artifact, Task], planted: Artifact) -> None:
    artifact, task = original
    audit = assay.audit(planted if bad else artifact, task, variant_names="full", detectors=(PatchScan(),))
    assert audit.null is not None
    if not bad:
        assert audit.verdict == "inconclusive"  # the trigger search was left out
        assert audit.p_value is not None
        assert audit.p_value > FALSE_ALARM_RATE
        return
    assert (audit.verdict, audit.target, audit.strongest) == ("backdoored", TARGET, "full/patch-scan")


def test_shipped_null_covers_default_tests() -> None:
    null = file.load_shipped()
    assert null is not None
    photos = next(model for model in null.models if model.family == "photos of objects")
    well = null.matched_to(0.95, photos.data)
    assert len(well) >= MIN_REFERENCE_MODELS
    assert null.fewest_classes == 5
    plan = without_useless_tests(plan_all(artifact_of(toy(10, None)[0], 10), DEFAULT, default_detectors()), well)
    assert {test.name for test in plan.detectors_on("full")} == {
        test.name for test in default_detectors() if not test.needs & Requirement.SECOND_MODEL
    }
    assert set(plan.variants) == set(DEFAULT)
    compared = {variant for variant, test in plan.tests if Requirement.ORIGINAL_MODEL in test.needs}
    assert compared == {"int8", *COMPARISON_ONLY}
    for variant, test in (pair for pair in plan.tests if pair[1].needs_null):
        # Most clean models break without a third of their filters, and have no scores on that variant.
        fewest = MIN_FAMILY_SIZE if variant == "filters-30" else MIN_REFERENCE_MODELS
        assert len(well.scores(make_test_id(variant, test.name))) >= fewest, (variant, test.name)
