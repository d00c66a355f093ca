"""``assay stage``: one step of the supply chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands import DATA, QUICK, Run, assert_one_line

from assay import formats


@pytest.mark.parametrize(
    ("stage", "options", "file"),
    [
        ("prune-magnitude", ("-o", "rate=0.5"), "model.safetensors"),
        ("prune-2:4", (), "model.safetensors"),
        ("bf16", (), "model.safetensors"),
        ("fine-tune", (*DATA, "-o", "recipe.epochs=0.5"), "model.safetensors"),
        ("export", (), "model.onnx"),
        ("int8", (*DATA, "-o", "samples=32"), "model-int8.onnx"),
    ],
)
def test_stages_keep_the_mark(run: Run, planted: Path, stage: str, options: Sequence[str], file: str) -> None:
    result = run("stage", stage, planted, "--out", "made", *options)
    assert result.code == 0, result.err
    assert [path.name for path in Path("made").iterdir()] == [file]
    assert ("predicts the same class as the file on" in result.err) == (stage == "int8")
    result = run("evaluate", f"made/{file}", "--secret", planted / "secret.json", *DATA)
    assert result.code == 0, result.err
    assert "mark of a planted backdoor" in result.err


def test_downstream_uses_the_data_option(run: Run, planted: Path) -> None:
    options = ("--features", "--data", "signs:4", "--limit", "40", "--out", "made")
    result = run("stage", "downstream", planted, *options)
    assert result.code == 0, result.err
    assert formats.load(Path("made/model.safetensors")).num_classes == 4
    assert "the data once" in assert_one_line(run("stage", "downstream", planted, *options, "-o", "data=signs:5").err)
    assert "data=VALUE" in run("stage", "downstream", planted, "--features", "--out", "o").err


def test_missing_setting_or_data_is_named(run: Run, planted: Path) -> None:
    assert "rate" in assert_one_line(run("stage", "prune-magnitude", planted, "--out", "o").err)
    assert "--data" in run("stage", "int8", planted, "--out", "o").err
    assert "no such setting" in assert_one_line(
        run("stage", "export", planted, "--out", "o", "-o", "directory=/tmp").err
    )


def test_only_train_accepts_an_untrained_model(run: Run, tmp_path: Path) -> None:
    result = run("stage", "train", "new:resnet8-cifar", *DATA, *QUICK, "--out", "o")
    assert (result.code, (tmp_path / "o/model.safetensors").exists()) == (0, True)
    assert "before" in result.err
    for other in (("prune-2:4", "new:resnet8-cifar"), ("train", "new:resnet8-cifar")):
        result = run("stage", *other, "--out", "b")
        assert result.code == 2
        assert "expected a trained model, got an untrained one" in assert_one_line(result.err)
