"""Tests of the helpers in ``benchmarks/lib``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_shards_cover_all_items_once() -> None:
    from lib.commands import Shard

    shards = [Shard.parse(f"{index}/3").select(range(10)) for index in range(3)]
    assert shards[0] == [0, 3, 6, 9]
    assert sorted(item for shard in shards for item in shard) == list(range(10))


def test_shard_outside_its_count_is_refused() -> None:
    from lib.commands import Shard

    with pytest.raises(argparse.ArgumentTypeError, match="got 3/3"):
        Shard.parse("3/3")


def test_subcommand_gets_its_arguments_by_name() -> None:
    from lib import commands

    calls = []
    parser = commands.parser("Test.")
    add_command = commands.subcommands(parser)
    add_command("double", lambda number: calls.append(2 * number), "double a number").add_argument("number", type=int)
    commands.run(parser, ["double", "21"])
    assert calls == [42]


def test_resumable_rows_are_saved_and_not_computed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lib import results

    monkeypatch.setattr(results, "RESULTS", tmp_path)
    first = results.ResumableRows("example", lambda rows: {"count": len(rows)})
    for name in first.missing(["a", "b"]):
        first.add(name, {"score": 1.0})
    document = json.loads((tmp_path / "example.json").read_text())
    assert document["count"] == 2
    commit = document["origin"]["commit"]
    assert document["models"] == {name: {"score": 1.0, "commit": commit} for name in "ab"}
    assert list(results.ResumableRows("example").missing(["a", "b", "c"])) == ["c"]


def test_rows_of_another_commit_keep_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lib import results

    monkeypatch.setattr(results, "RESULTS", tmp_path)
    for commit, name in (("aaaaaaa", "a"), ("bbbbbbb", "b")):
        monkeypatch.setattr(results, "origin", lambda commit=commit: {"commit": commit})
        results.ResumableRows("example").add(name, {"score": 1.0})
    document = json.loads((tmp_path / "example.json").read_text())
    assert [row["commit"] for row in document["models"].values()] == ["aaaaaaa", "bbbbbbb"]


def test_row_files_of_two_shards_complete_each_other(tmp_path: Path) -> None:
    from lib.commands import Shard
    from lib.results import RowFiles

    computed = []

    def measure(name: str) -> dict[str, str]:
        computed.append(name)
        return {"name": name}

    names = ["a", "b", "c"]
    for _ in range(2):  # the second pass computes nothing
        for shard in (Shard(0, 2), Shard(1, 2)):
            RowFiles(tmp_path).complete(names, measure, shard)
    assert sorted(computed) == names
    assert RowFiles(tmp_path).read(names) == {name: {"name": name} for name in names}


def test_row_without_reference_models_is_inconclusive() -> None:
    from lib.audit_rows import with_verdict

    row = {
        "findings": {"full/weight-norm": [1.0, None, 3]},
        "variants": {"full": 0.9, "int4": "compression broke it"},
        "samples": 100,
        "classes": 10,
        "data": None,
    }
    assert with_verdict(row, None)["verdict"] == "inconclusive"
