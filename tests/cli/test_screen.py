"""Progress on standard error: a bar on a terminal, and some lines in a log."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from assay.cli import screen


def set_clock(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Replace the clock of the module, and of no other one."""
    clock = iter(seconds)
    monkeypatch.setattr(screen, "time", SimpleNamespace(monotonic=lambda: next(clock)))


def test_log_gets_one_line_of_progress_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_clock(monkeypatch, 0.0, 59.0, 61.0, 62.0, 122.0)
    with screen.progress("starting") as step:
        for number in range(1, 5):
            step(f"step {number}", number / 4)
    assert (
        capsys.readouterr().err
        == "50% after 60 seconds, about 60 seconds left: step 2\n100% after 2 minutes, about 0 seconds left: step 4\n"
    )


def test_steps_that_state_the_time_left_get_no_other_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_clock(monkeypatch, 0.0, 300.0)
    with screen.progress("starting", estimate=False) as step:
        step("int8: patch-scan, 3 tests and about 20 seconds left", 0.25)
    assert capsys.readouterr().err == "25% after 5 minutes: int8: patch-scan, 3 tests and about 20 seconds left\n"
