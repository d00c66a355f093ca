"""What people see while something runs: a bar on a terminal, and in a log a line now and then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from assay.cli import screen


def test_a_log_gets_lines_of_progress_but_not_one_a_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 59.0, 61.0, 62.0, 122.0])
    monkeypatch.setattr(screen, "time", SimpleNamespace(monotonic=lambda: next(clock)))  # this module's clock only
    with screen.progress("starting") as step:
        for number in range(1, 5):
            step(f"step {number}", number / 4)
    assert capsys.readouterr().err == "50% after 1 min, about 1 more: step 2\n100% after 2 min, about 0 more: step 4\n"
