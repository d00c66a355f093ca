"""Commands in a box: what the parent returns, prints and leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys
from assay.sandbox.box import enter_box
from assay.sandbox import phases
code = enter_box(sys.argv[2:])
if code is not None:
    sys.exit(code)
exec(sys.argv[1])
"""
HANG = "print('started', flush=True); import time; time.sleep(60)"
# A native loop: the interpreter handles no signal in it.
NATIVE = "print('started', flush=True); import ctypes; ctypes.CDLL(None).poll(None, 0, 60000)"
MASKED = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM]); " + HANG

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and prctl")


def start(code: str, *options: str) -> subprocess.Popen[str]:
    """Start ``code`` in a box, with options of the command line."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, code, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(code: str, *options: str) -> tuple[int, str, str]:
    """Run ``code`` in a box, and return exit code, standard output and standard error."""
    process = start(code, *options)
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def child_of(process: subprocess.Popen[str]) -> int:
    """Return the child of a started box."""
    from assay.sandbox.processes import descendants

    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    (child,) = descendants(process.pid)
    return child


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + 10
    while exists(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.02)


@pytest.mark.parametrize(("code", "verdict"), [(0, False), (1, True), (2, False), (3, False)])
def test_the_reported_exit_code_is_returned(code: int, verdict: bool) -> None:
    assert run(f"print('out'); phases.ended({code}, verdict={verdict})") == (code, "out\n", "")


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("phases.ended(1, verdict=False)", "an exit with code 0"),
        ("import os; os._exit(1)", "an exit with code 1"),
        ("raise SystemExit(1)", "an exit with code 1"),
        ("import os; os.abort()", "the signal SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the signal SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the signal SIGKILL"),
    ],
)
def test_an_end_without_a_verdict_is_one_line_and_exit_code_2(code: str, end: str) -> None:
    exit_code, _, error = run(code)
    assert exit_code == 2
    assert error.count("\n") == 1
    assert error.startswith("assay: expected a result of the command, got ")
    assert end in error


def test_messages_of_native_code_are_silenced_and_those_of_python_stay() -> None:
    code = "import os, sys; os.write(2, b'panic'); print('kept', file=sys.stderr); phases.ended(0, verdict=False)"
    assert run(code) == (0, "", "kept\n")


def test_reading_beyond_its_time_ends_with_the_name_of_the_file() -> None:
    start_time = time.monotonic()
    code, _, error = run(f"with phases.reading('reading m.onnx'): {NATIVE}", "--limits", "time=0.3")
    assert code == 2
    assert "reading m.onnx: expected at most 0.3 seconds" in error
    assert time.monotonic() - start_time < 20


def test_a_short_reading_and_long_work_after_it_pass() -> None:
    code = "import time\nwith phases.reading('a'): pass\ntime.sleep(1)\nphases.ended(0, verdict=False)"
    assert run(code, "--limits=time=0.5") == (0, "", "")


def test_memory_beyond_the_limit_ends_the_command() -> None:
    code, _, error = run("a = bytearray(2**29); import time; time.sleep(30)", "--limits", "memory=0.25")
    assert code == 2
    assert "expected at most 0.25 GiB of memory, got 0." in error


def test_memory_of_a_grandchild_counts() -> None:
    code = "import os, time\nif os.fork() == 0: a = bytearray(2**29)\ntime.sleep(30)"
    assert "GiB of memory" in run(code, "--limits", "memory=0.25")[2]


def test_a_budget_without_an_end_is_enforced_after_a_grace() -> None:
    code, _, error = run(f"with phases.running(0.5): {NATIVE}")
    assert code == 2
    assert "expected an end within the budget of 0.5 seconds" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", [MASKED, "signal = __import__('signal'); " + HANG])
def test_a_signal_ends_the_command_within_seconds(code: str, number: signal.Signals) -> None:
    process = start(code)
    child = child_of(process)
    before = time.monotonic()
    process.send_signal(number)
    error = process.communicate(timeout=30)[1]
    assert time.monotonic() - before < 10
    assert process.returncode == 2
    assert not exists(child)
    if code is MASKED:
        assert error == "assay: interrupted; no incomplete file was left behind\n"


def test_the_child_ends_with_a_killed_parent() -> None:
    process = start(NATIVE)
    child = child_of(process)
    process.kill()
    process.communicate(timeout=30)
    wait_until_gone(child)


def test_helpers_left_behind_are_ended() -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); phases.ended(0, verdict=False)"
    process = start(code)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert not exists(int(out))


def test_without_sandbox_the_command_runs_in_the_same_process() -> None:
    code = "import os; print(os.getpid(), phases.LINK.pipe)"
    process = start(code, "--no-sandbox")
    assert process.communicate(timeout=30)[0] == f"{process.pid} None\n"


def test_malformed_limits_are_one_line() -> None:
    code, _, error = run("raise AssertionError", "--limits", "time=fast")
    assert code == 2
    assert error.startswith("assay: --limits: expected time=SECONDS,memory=GIB, got 'time=fast'")


def test_options_after_two_dashes_are_none() -> None:
    assert run("phases.ended(0, verdict=False)", "--", "--limits", "nonsense")[0] == 0
