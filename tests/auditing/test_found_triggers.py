"""Found triggers, rounded to 8 bits and measured one by one."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from assay.auditing.facts import AuditInputs, AuditRun, CleanSamples, Preconditions, RunContext
from assay.auditing.found_triggers import IN_BATCHES, ONE_BY_ONE, measure_found_triggers
from assay.auditing.image_edits import on_grid
from assay.core.dataset import Split
from assay.core.finding import FULL, Evidence, Finding, Outcome
from assay.core.model import Artifact, ImageSpec, Modality
from assay.core.result import DeploymentCheck
from assay.detectors import budget
from assay.detectors.budget import Budget

SHAPE, TARGET = (3, 4, 4), 1
VALUE = 0.7 + 0.3 / 255  # of the trigger: not on a whole 8-bit step


class Net(nn.Module):
    """Class 1 for a corner with the number of the trigger, else class 0."""

    def __init__(self, *, width: float = 1.0, largest_batch: int = 1000) -> None:
        super().__init__()
        self.width, self.largest_batch = width, largest_batch  # width in 8-bit steps

    def forward(self, x: Tensor) -> Tensor:
        has_trigger = ((x[:, 0, 0, 0] - VALUE).abs() * 255 < self.width) & (len(x) <= self.largest_batch)
        return nn.functional.one_hot(has_trigger.long(), 3).float()


def stamp(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0, 0, 0] = VALUE
    return x


def measure(module: nn.Module, apply=stamp):
    x = 0.5 * torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    artifact = Artifact(module.eval(), Modality.IMAGE, 3, "module", "0", ImageSpec(SHAPE))
    samples, predictions = CleanSamples("test", Split(x, None)), torch.zeros(20, dtype=torch.int64)
    check = DeploymentCheck((), ())
    inputs = AuditInputs(artifact, samples, predictions, Preconditions(20), None, None, check)
    after = stamp(x[:2]).numpy()
    evidence = Evidence(after=after, predicted_after=(TARGET, TARGET), apply=apply)
    finding = Finding("test", Outcome.SCORED, FULL, score=3.0, target=TARGET, evidence=evidence)
    run, differences = measure_found_triggers(inputs, AuditRun((finding,), (), {FULL: artifact}), RunContext(0))
    return inputs, run.findings[0].evidence, differences


def test_trigger_that_survives_rounding_differs_in_nothing():
    _, evidence, differences = measure(Net())
    assert (evidence.numbers[IN_BATCHES], evidence.numbers[ONE_BY_ONE]) == (1.0, 1.0)
    assert not differences


@pytest.mark.parametrize("net", [Net(width=0.2), Net(largest_batch=1)], ids=["between steps", "alone only"])
def test_trigger_that_depends_on_the_way_of_asking_is_a_difference(net):
    inputs, evidence, differences = measure(net)
    assert {evidence.numbers[IN_BATCHES], evidence.numbers[ONE_BY_ONE]} == {0.0, 1.0}
    assert [part.kind for part in differences] == ["trigger"]
    assert inputs.with_differences(differences).preconditions.trigger == differences[0].sentence


def test_shown_images_are_rounded_and_so_are_their_predictions():
    _, evidence, _ = measure(Net(width=0.2))
    after = torch.as_tensor(evidence.after)
    torch.testing.assert_close(after, on_grid(after))
    assert evidence.predicted_after == (0, 0)


def test_trigger_that_cannot_be_applied_is_left_out():
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("gone")

    _, evidence, differences = measure(Net(), fail)
    assert not evidence.numbers
    assert not differences


def test_trigger_whose_measurement_would_exceed_the_budget_is_not_measured_one_by_one(monkeypatch):
    clock = iter([0.0, 3.0])  # 3 seconds in batches
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: next(clock)))
    left = iter([10.0, 2.0])
    monkeypatch.setattr(Budget, "left", lambda self: next(left))
    _, evidence, differences = measure(Net(width=0.2))
    assert not evidence.numbers
    assert not differences
