"""``assay audit-many``: many models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import Run, assert_one_line, write_weights

pytestmark = pytest.mark.slow


def test_folder_is_audited_and_no_model_twice(run: Run, planted: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    write_weights(zoo / "one.safetensors", planted)
    (zoo / "broken.onnx").write_bytes(b"no model")
    quick = ("--arch", "resnet8-cifar", "--data", "signs:3", "--variants", "full", "--detectors", "depth-scan")
    result = run("audit-many", zoo, *quick, "--workers", "1", "--out", "all")
    assert result.code == 2, result.err
    assert "2 models: 1 failed, 1 inconclusive" in result.err
    document = json.loads((tmp_path / "all/audits.json").read_text())
    assert [model["verdict"] for model in document["models"]] == ["failed", "inconclusive"]
    assert (tmp_path / "all" / document["models"][1]["report"]).is_file()
    (zoo / "broken.onnx").unlink()
    later = run("audit-many", zoo, *quick, "--workers", "1", "--out", "new", "--since", "all")
    assert (later.code, "audited by an earlier run" in (tmp_path / "new/index.html").read_text()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected models"),
        (["nowhere/*.onnx"], "no model there"),
        (["--list", "none.txt"], "cannot be read"),
        (["zoo", "--detectors", "neural-cleans"], "neural-cleanse"),
        (["zoo", "--since", "nowhere"], "earlier audit-many"),
        (["zoo", "--since", "assay-audits"], "same folder"),
        (["zoo", "--data", "nowhere.npz"], "no such data"),
        ([""], "no model there"),
        (["zoo", "--ray", "localhost:1"], "nothing answers there"),
        (["zoo", "--budget", "0"], "more than 0 seconds"),
    ],
)
def test_unusable_input_is_rejected_before_the_audits(
    arguments: list[str], expected: str, run: Run, planted: Path, tmp_path: Path
) -> None:
    (tmp_path / "zoo").mkdir()
    write_weights(tmp_path / "zoo/one.safetensors", planted)
    result = run("audit-many", *arguments)
    assert result.code == 2
    assert expected in assert_one_line(result.err)
