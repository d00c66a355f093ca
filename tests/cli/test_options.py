"""Options of the commands: one line for each unusable value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands import DATA, Run, assert_one_line

NEW_MODEL = ("plant", "badnets", "--model", "new:x", "--data", "signs", "--out", "o")


BAD_ARGUMENTS: dict[str, tuple[Sequence[str], str]] = {
    "budget zero": (("audit", "m", "--budget", "0"), "--budget"),
    "budget negative": (("audit", "m", "--budget", "-3"), "--budget"),
    "budget not a number": (("audit", "m", "--budget", "soon"), "--budget"),
    "budget nan": (("audit", "m", "--budget", "nan"), "--budget"),
    "unknown variant": (("audit", "m", "--variants", "full,int9"), "int9"),
    "unknown detector": (("audit", "m", "--detectors", "patchscan"), "did you mean patch-scan"),
    "bad shape": (("audit", "m", "--shape", "3x32x32"), "--shape"),
    "short shape": (("audit", "m", "--shape", "32,32"), "expected (channels, height, width)"),
    "bad mean": (("audit", "m", "--mean", "a,b"), "--mean"),
    "unknown null": (("audit", "m", "--null", "nope.json"), "nope.json"),
    "negative seed": (("audit", "m", "--seed", "-1"), "--seed"),
    "no model": (("audit",), "MODEL"),
    "unknown command": (("audti", "m"), "audit"),
    "unknown option": (("audit", "m", "--bugdet", "3"), "--bugdet"),
    "out is a file": (("audit", "m", "--out", "file"), "--out"),
    "out below a file": (("audit", "m", "--out", "file/x"), "--out"),
    "out cannot be": (("audit", "m", "--out", "/proc/assay"), "--out"),
    "json in no folder": (("audit", "m", "--json", "nowhere/a.json"), "--json"),
    "json is a folder": (("audit", "m", "--json", "folder"), "--json"),
    "unknown attack": (("plant", "badnet", "--model", "m", "--data", "signs", "--out", "o"), "did you mean badnets"),
    "unknown stage": (("stage", "prune-magnitud", "m", "--out", "o"), "did you mean prune-magnitude"),
    "fresh and arch": ((*NEW_MODEL, "--arch", "y"), "--arch"),
    "fresh unknown": (NEW_MODEL, "unknown architecture"),
    "one class": ((*NEW_MODEL, "--classes", "1"), "--classes"),
    "one model": (("calibrate", "m", "--data", "signs", "--out", "nowhere/null.json"), "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_unusable_argument_gives_one_line(run: Run, tmp_path: Path, arguments: Sequence[str], expected: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert expected in assert_one_line(result.err)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


BAD_SETTINGS = {
    "patch.sise=3": "did you mean patch.size",
    "size=3": "did you mean patch.size",
    "patch.size=big": "a whole number",
    "patch.size": "key=value",
    "patch.color=plaid": "white",
    "recipe.optimizer=lion": "sgd or adam",
    "recipe.augment=perhaps": "true or false",
    "recipe.lr=nan": "a number",
    "recipe.lr=-1": "a number above 0 as the recipe's lr, got -1.0",
    "recipe.epochs=-1": "recipe's epochs, got -1",
    "recipe.batch_size=0": "a whole number of at least 1",
    "sources=1,x": "numbers with commas",
    "target=99": "target class in [0, 3)",
    "ratio=2": "(0, 1]",
    "blend.alpha=0.5": "known: target",
    "name=x": "no such setting",
}


@pytest.mark.parametrize(("setting", "expected"), BAD_SETTINGS.items(), ids=list(BAD_SETTINGS))
def test_unusable_setting_gives_one_line(run: Run, tmp_path: Path, setting: str, expected: str) -> None:
    result = run("plant", "badnets", "--model", "new:resnet8-cifar", *DATA, "--out", "o", "-o", setting)
    assert result.code == 2
    assert expected in assert_one_line(result.err)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("setting", "expected"), [("alpha=3", "(0, 1), got 3.0"), ("cells=0", "from 1 to 4096, or none")]
)
def test_impossible_blend_gives_one_line(run: Run, tmp_path: Path, setting: str, expected: str) -> None:
    result = run("plant", "blended", "--model", "new:resnet8-cifar", *DATA, "--out", "o", "-o", f"blend.{setting}")
    assert result.code == 2
    assert expected in assert_one_line(result.err)
    assert not (tmp_path / "o").exists()


def test_repeated_setting_is_rejected(run: Run) -> None:
    twice = ("-o", "target=1", "-o", "target=2")
    assert "twice" in run("plant", "badnets", "--model", "new:resnet8-cifar", *DATA, "--out", "o", *twice).err
