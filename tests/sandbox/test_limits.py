"""Limits of time and memory as texts and defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.core.errors import UnusableInput
from assay.sandbox.limits import GIB, Limits, budget_end, size_of


def test_limits_are_parsed_in_any_order() -> None:
    assert Limits.parse("memory=8,time=120") == Limits(120.0, 8 * GIB)
    assert Limits.parse(" time = 1.5 ") == Limits(1.5)
    assert Limits.parse(None) == Limits()


@pytest.mark.parametrize(
    "text", ["", "8", "time", "time=", "time=0", "time=-1", "time=nan", "time=inf", "cpu=1", "time=1,time=2"]
)
def test_malformed_limits_are_refused(text: str) -> None:
    with pytest.raises(UnusableInput, match="--limits: expected time=SECONDS,memory=GIB"):
        Limits.parse(text)


def test_large_files_get_more_time_and_memory() -> None:
    assert Limits().reading_seconds(0) == 120
    assert Limits().reading_seconds(2**30) == 512
    assert Limits().reading_memory(0) == 4 * GIB or Limits().reading_memory(0) == Limits().total_memory()
    assert Limits(seconds=5).reading_seconds(2**40) == 5
    assert Limits(memory=GIB).reading_memory(2**40) == GIB


def test_workers_share_the_memory_of_the_machine() -> None:
    assert 2 * Limits(workers=2).total_memory() < Limits().total_memory()


def test_a_budget_has_a_grace() -> None:
    assert budget_end(4) == 14
    assert budget_end(100) == 125


def test_the_size_of_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"de")
    assert size_of([tmp_path]) == 5
    assert size_of([tmp_path / "b", tmp_path / "none", "a\0b"]) == 2
