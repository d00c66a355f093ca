"""Faults found by fuzzing stay mended, and a few new cases of every reader are tried."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = 240  # of all readers together

REPLAY = """
import json
from fuzz.run import replay
print(json.dumps({str(path): outcome for path, outcome in replay()}))
"""

HARNESS = """
import json, os, signal, sys
from pathlib import Path
from fuzz import run
from fuzz.readers import Reader

def make(reader, base, number, folder):
    folder.mkdir()
    (folder / "number").write_text(str(number))

def read(folder):
    number = int((folder / "number").read_text())
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif number == 2:
        signal.pause()
    elif number == 3:
        raise KeyError("x")

run.MAX_SECONDS, run.make_case = 0.5, make
base = Path(sys.argv[1]) / "base"
base.mkdir()
print(json.dumps({case[0]: case[1] for case in run.run_cases(Reader("toy", make, read), base, range(5))}))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository, in a process without threads."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_cases_of_corpus_are_read_or_refused() -> None:
    ended = run("-c", REPLAY)
    assert ended.returncode == 0, ended.stderr[-2000:]
    outcomes = json.loads(ended.stdout.splitlines()[-1])
    assert outcomes, "the corpus is empty"
    assert {path: outcome for path, outcome in outcomes.items() if outcome not in ("read", "refused")} == {}


@pytest.mark.slow
def test_new_cases_are_read_or_refused(tmp_path: Path) -> None:
    ended = run("-m", "fuzz.run", "--cases", str(CASES), "--json", str(tmp_path / "table.json"))
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    table = json.loads((tmp_path / "table.json").read_text())
    assert sum(row["cases"] for row in table.values()) >= CASES
    assert all(row["read"] for row in table.values()), "a reader reads none of its cases"


def test_harness_notices_crash_hang_and_error(tmp_path: Path) -> None:
    ended = run("-c", HARNESS, str(tmp_path))
    assert ended.returncode == 0, ended.stderr[-2000:]
    outcomes = json.loads(ended.stdout)
    assert outcomes["0"] == outcomes["4"] == "read"
    assert outcomes["1"] == "SIGSEGV"
    assert outcomes["2"] == "more than 20 s"
    assert outcomes["3"] == "KeyError outside assay"
