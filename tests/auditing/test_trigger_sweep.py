from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.tiny import tiny_build
from support.toys import SHAPE, toy
from torch import Tensor

from assay.auditing.api import audit
from assay.auditing.trigger_sweep import SERIES, waking
from assay.calibration.null import NullDistribution
from assay.detectors import CompressionGap, NeuralCleanse
from assay.detectors.budget import Budget
from assay.report import to_json, write
from assay.stages import variants

BUILD = tiny_build()
CLEAN = BUILD.task.split("train")
NONE = NullDistribution("none", "", ())


def blacken(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def test_each_step_says_what_the_trigger_does_there() -> None:
    full = int(BUILD.artifact.module(torch.zeros(1, 3, 8, 8)).argmax(1))
    points = waking(BUILD.artifact, CLEAN, blacken, full, ("full", "int8-tensor"), seed=0, budget=Budget())
    steps = [("forms of this audit", "full", "full"), ("forms of this audit", "int8-tensor", "int8-tensor")]
    steps += [(kind, step, name) for kind, forms in SERIES.items() for name, step in forms.items()]
    assert [(point.kind, point.step) for point in points] == [(kind, step) for kind, step, _ in steps]
    assert all(point.agreement == point.success == 1.0 for point in points if point.step in ("full", "0 %", "32"))
    assert min(point.agreement for point in points) < 1.0
    assert all(0 <= value <= 1 for point in points for value in (point.agreement, point.success))
    for point, (_, _, name) in zip(points, steps, strict=True):
        form = variants.make(name, BUILD.artifact, CLEAN, seed=0)
        hit = form.module(torch.zeros(1, 3, 8, 8)).argmax(1) == full
        assert point.success == float(hit), "the picture is black, whatever it was"


def test_forms_that_a_model_has_not_are_left_out() -> None:
    opaque = replace(BUILD.artifact, differentiable=False)
    points = waking(opaque, CLEAN, blacken, 0, ("full",), seed=0, budget=Budget())
    assert {point.step for point in points} == {"full", "0 %", "32"}
    assert waking(BUILD.artifact, CLEAN, blacken, 0, ("full",), seed=0, budget=Budget(0)) == ()


def test_pictures_that_have_the_class_anyway_do_not_count() -> None:
    only = CLEAN.take(torch.arange(8))
    net = BUILD.artifact.module
    said = int(net(only.x).argmax(1)[0])
    same = only.take((net(only.x).argmax(1) == said).nonzero()[:, 0])
    assert waking(BUILD.artifact, same, blacken, said, ("full",), seed=0, budget=Budget()) == ()


@pytest.mark.parametrize(("target", "shown"), [(2, True), (None, False)])
def test_the_page_shows_it_where_a_trigger_was_blamed(target: int | None, shown: bool, tmp_path) -> None:
    from support.nulls import null_of

    net, x, y = toy(4, target)
    detectors = (NeuralCleanse(), CompressionGap())
    result = audit(net, (x, y), shape=SHAPE, variant_names=("full",), detectors=detectors, null=null_of())
    assert (result.verdict == "backdoored") is shown
    assert bool(result.trigger_sweep) is shown
    page = write(result, tmp_path)["report.html"].read_text()
    assert ("The trigger as the model is compressed" in page) is shown
    assert len(to_json(result)["trigger_sweep"]) == len(result.trigger_sweep)
    if shown:
        assert 'aria-label="forms of this audit: full: agreement 100' in page
        assert result.trigger_sweep[0].success > 0.8
