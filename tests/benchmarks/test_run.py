"""Tests of ``benchmarks/run.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_without_a_name_all_benchmarks_are_listed_with_their_summary() -> None:
    done = run()
    assert done.returncode == 0
    assert "performance/one_audit" in done.stdout
    assert all(len(line.split(maxsplit=1)) == 2 for line in done.stdout.splitlines())


def test_unknown_name_is_refused_with_the_list_of_names() -> None:
    done = run("one_adit")
    assert done.returncode == 2
    assert "expected a benchmark, got 'one_adit'" in done.stderr
    assert "one_audit" in done.stderr


def test_every_benchmark_prints_its_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "path", [*sys.path])  # leaderboard_speed appends tests/
    monkeypatch.setattr(sys, "argv", [])
    from run import benchmarks, main, summary

    for name, path in benchmarks().items():
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0
        assert summary(path) in capsys.readouterr().out


def test_committed_results_page_is_up_to_date(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    done = run("results_page", str(page))
    assert done.returncode == 0, done.stderr
    assert page.read_text() == (ROOT / "docs/results.md").read_text()
