"""Trigger sweep: success rates by variant, and the choice of the trigger."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.nulls import null_of
from support.tiny import CLASSES, tiny_build
from support.toys import SHAPE, toy
from torch import Tensor

from assay.auditing.api import audit
from assay.auditing.facts import RunContext
from assay.auditing.trigger_sweep import AUDITED, SERIES, FoundTrigger, sweep_trigger
from assay.core.model import Artifact
from assay.core.result import SweepPoint
from assay.detectors import CompressionGap, NeuralCleanse, budget
from assay.detectors.budget import Budget
from assay.report import to_json, write
from assay.stages import variants

BUILD = tiny_build()
CLEAN = BUILD.task.split("train")


def blacken(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def sweep(
    target: int, *names: str, artifact: Artifact = BUILD.artifact, seconds: float = 1e9, **made: Artifact
) -> tuple[SweepPoint, ...]:
    """Sweep the trigger that makes each image black."""
    audited = {name: made.get(name) for name in names}
    trigger = FoundTrigger(blacken, target, "full/test")
    return sweep_trigger(artifact, CLEAN, trigger, audited, RunContext(0, Budget(seconds)))


def test_sweep_points_match_predictions_of_each_variant() -> None:
    black = torch.zeros(1, 3, 8, 8)
    target = int(BUILD.artifact.module(black).argmax(1))
    points = sweep(target, "full", "int8-tensor")
    steps = [(AUDITED, "full", "full"), (AUDITED, "int8-tensor", "int8-tensor")]
    steps += [(kind, step, name) for kind, labels in SERIES.items() for name, step in labels.items()]
    assert [(point.kind, point.step) for point in points] == [(kind, step) for kind, step, _ in steps]
    assert all(point.agreement == point.success == 1.0 for point in points if point.step in ("full", "0 %", "32"))
    assert min(point.agreement for point in points) < 1.0
    for point, (_, _, name) in zip(points, steps, strict=True):
        variant = variants.make(name, BUILD.artifact, CLEAN, seed=0)
        reached = variant.module(black).argmax(1) == target
        assert point.success == float(reached)  # all triggered images are the same black image


def test_sweep_variant_of_the_audit_not_made_again() -> None:
    target = int(BUILD.artifact.module(torch.zeros(1, 3, 8, 8)).argmax(1))
    other = torch.nn.Linear(3 * 8 * 8, CLASSES)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()[(target + 1) % CLASSES] = 1.0
    made = replace(BUILD.artifact, module=torch.nn.Sequential(torch.nn.Flatten(), other))
    point = next(p for p in sweep(target, "bf16", bf16=made) if p.kind == AUDITED)
    assert point.success == 0.0


def test_sweep_unavailable_variants_left_out() -> None:
    points = sweep(0, "full", artifact=replace(BUILD.artifact, differentiable=False))
    assert {point.step for point in points} == {"full", "0 %", "32"}


def test_sweep_without_time_left_empty() -> None:
    assert sweep(0, "full", seconds=0) == ()


def test_sweep_ends_where_the_next_step_would_exceed_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 3.0, 4.0])  # two steps, of 3 and 1 seconds
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: next(clock)))
    left = iter([10.0, 7.0, 2.9])
    monkeypatch.setattr(Budget, "left", lambda self: next(left))
    assert len(sweep(0, "full", "bf16", "int8-tensor")) == 2


def test_sweep_samples_of_the_target_class_not_counted() -> None:
    module = BUILD.artifact.module
    target = int(module(CLEAN.x[:8]).argmax(1)[0])
    same = CLEAN.take((module(CLEAN.x).argmax(1) == target).nonzero()[:, 0])
    trigger = FoundTrigger(blacken, target, "full/test")
    assert sweep_trigger(BUILD.artifact, same, trigger, {"full": None}, RunContext(0)) == ()


@pytest.mark.parametrize(("target", "shown"), [(2, True), (None, False)])
def test_report_trigger_found_shows_sweep(target: int | None, shown: bool, tmp_path: Path) -> None:
    model, x, y = toy(4, target)
    detectors = (NeuralCleanse(), CompressionGap())
    result = audit(model, (x, y), shape=SHAPE, variant_names=("full",), detectors=detectors, null=null_of())
    assert (result.verdict == "backdoored") is shown
    assert bool(result.trigger_sweep) is shown
    page = write(result, tmp_path)["report.html"].read_text()
    assert ("Trigger success under compression" in page) is shown
    assert len(to_json(result)["trigger_sweep"]) == len(result.trigger_sweep)
    if shown:
        assert f'aria-label="{AUDITED}: full: agreement 100' in page
        assert result.trigger_sweep[0].success > 0.8
