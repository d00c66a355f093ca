"""Progress on standard error: a bar on a terminal, and some lines in a log."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from assay.cli import screen


def test_log_gets_one_line_of_progress_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 59.0, 61.0, 62.0, 122.0])
    monkeypatch.setattr(screen, "time", SimpleNamespace(monotonic=lambda: next(clock)))  # the clock of this module only
    with screen.progress("starting") as step:
        for number in range(1, 5):
            step(f"step {number}", number / 4)
    assert (
        capsys.readouterr().err
        == "50% after 1 min, about 1 min left: step 2\n100% after 2 min, about 0 min left: step 4\n"
    )
