"""Errors and Ctrl-C: one line, an exit code, and no incomplete files."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import ASSAY, Run, assert_one_line

from assay.cli.failures import Verdict, exit_code_of


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


def test_exit_code_1_without_a_verdict_becomes_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: 1) == 2
    assert "exit code 1 without one" in assert_one_line(capsys.readouterr().err)
    assert exit_code_of(lambda: Verdict(1)) == 1
    assert exit_code_of(lambda: 3) == 3


class Panic(BaseException):
    """As PanicException of pyo3."""


@pytest.mark.parametrize("error", [Panic("index out of bounds"), MemoryError(), RecursionError("deep")])
def test_any_error_is_one_line_and_exit_code_2(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise error

    assert exit_code_of(command) == 2
    assert f"unexpected {type(error).__name__}" in assert_one_line(capsys.readouterr().err)


def test_an_exit_inside_of_a_command_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise SystemExit(1)

    assert exit_code_of(command) == 2
    assert "got an exit with code 1 inside of it" in assert_one_line(capsys.readouterr().err)


def test_json_to_a_closed_standard_output_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(f"{ASSAY} list --json - >&-", shell=True, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert "--json -: expected an open standard output, got a closed one" in assert_one_line(done.stderr)
