"""Errors and Ctrl-C: one line, an exit code, and no incomplete files."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import ASSAY, Run, assert_one_line


@pytest.mark.slow
def test_interrupt_gives_one_line_and_leaves_no_files(
    run: Run, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("assay.report.write", interrupted)
    result = run("audit", planted, "--variants", "full", "--budget", "0.01", "--json", "-")
    assert (result.code, result.out) == (2, "")
    assert "assay: interrupted" in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_unexpected_error_gives_one_line_and_debug_shows_the_traceback(
    run: Run, planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("on fire\nand more")

    monkeypatch.setattr("assay.formats.load", broken)
    result = run("audit", planted)
    assert result.code == 2
    assert "unexpected RuntimeError: on fire" in assert_one_line(result.err)
    assert "ASSAY_DEBUG=1" in result.err
    monkeypatch.setenv("ASSAY_DEBUG", "1")
    with pytest.raises(RuntimeError, match="on fire"):
        run("audit", planted)


def test_sigint_to_the_process_gives_one_line_and_leaves_no_files(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [str(ASSAY), "demo", "--out", "d"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: what a shell starts in the background inherits that the signal is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(4)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (2, "")
    assert assert_one_line(err).startswith("assay: interrupted")
    assert list(tmp_path.iterdir()) == []
