"""Jobs in boxes: a failing one has a reason, and the worker goes on."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from support.box_jobs import abort, connect, double, eat, hang, leave

from assay.sandbox.jobs import JobDied, run_in_box
from assay.sandbox.limits import Limits

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and prctl")


def test_a_job_runs_in_a_process_of_its_own() -> None:
    result = run_in_box(double, (21,), name="job", limits=Limits())
    assert result["number"] == 42
    assert result["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("function", "reason"),
    [(abort, "the end of its process by the signal SIGABRT"), (leave, "the end of its process with exit code 1")],
)
def test_a_crash_of_a_job_is_a_reason(function: Any, reason: str) -> None:
    with pytest.raises(JobDied, match=f"the audit of m: expected a result, got {reason}"):
        run_in_box(function, (), name="the audit of m", limits=Limits())


def test_a_job_that_hangs_while_reading_is_ended() -> None:
    with pytest.raises(JobDied, match=r"reading m\.onnx: expected at most 0\.3 seconds"):
        run_in_box(hang, (), name="job", limits=Limits(seconds=0.3))


def test_a_job_that_eats_memory_is_ended() -> None:
    with pytest.raises(JobDied, match=r"expected at most 0\.25 GiB of memory"):
        run_in_box(eat, (), name="job", limits=Limits(memory=2**28))


def test_a_job_has_no_network() -> None:
    assert run_in_box(connect, (), name="job", limits=Limits()) == {"error": "NetworkRefused"}
