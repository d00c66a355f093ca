"""Fixtures of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import DATA, QUICK, CommandResult, Run

from assay.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: object) -> CommandResult:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return CommandResult(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small model with a backdoor and of its secret, written by `assay plant`."""
    out = tmp_path_factory.mktemp("planted") / "out"
    new = ("plant", "badnets", "--model", "new:resnet8-cifar", "--shape", "3,16,16", "--out", str(out))
    assert main([*new, *DATA, *QUICK, "-o", "target=1", "-o", "patch.size=5"]) == 0
    return out
