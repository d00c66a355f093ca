"""``assay calibrate``: null distributions of the user's own clean models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import Run, assert_one_line, write_weights

from assay.calibration.file import load as load_null
from assay.calibration.null import MIN_REFERENCE_MODELS
from assay.calibration.reference import CleanReferenceModel, Score
from assay.data.synthetic import signs

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a file of images with labels; a set of generated signs takes seconds."""
    task = signs(3, size=16, per_class=20, seed=0).split("train")
    np.savez(tmp_path / "signs.npz", x=(255 * task.x).round().to(torch.uint8).numpy(), y=task.y.numpy())
    return tmp_path / "signs.npz"


def test_interrupted_calibration_continues(
    run: Run, planted: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    for number in range(2):
        weights = load_file(planted / "model.safetensors")
        weights["linear.bias"] = weights["linear.bias"] + 0.01 * number
        models.append(tmp_path / f"clean{number}.safetensors")
        save_file(weights, models[-1])
    scored: list[str] = []

    def score(artifact, task, settings, *, origin, family) -> CleanReferenceModel:
        scored.append(artifact.name)
        if len(scored) == 2:
            raise KeyboardInterrupt
        return CleanReferenceModel({"full/neural-cleanse": Score(float(len(scored)), 1)}, origin, family=family)

    monkeypatch.setattr("assay.auditing.calibrate.score_clean_model", score)
    command = ("calibrate", *models, "--arch", "resnet8-cifar", "--data", data, "--out", "null.json")
    assert run(*command, "--variants", "full").code == 2
    assert not (tmp_path / "null.json").exists()
    result = run(*command, "--variants", "full")
    assert result.code == 0, result.err
    assert scored == [str(model) for model in (models[0], models[1], models[1])]
    assert f"needs {MIN_REFERENCE_MODELS} of them" in result.err
    null = load_null(tmp_path / "null.json")
    assert [dict(model.scores) for model in null.models] == [
        {"full/neural-cleanse": Score(1.0, 1)},
        {"full/neural-cleanse": Score(3.0, 1)},
    ]
    assert not (tmp_path / "null.json.partial").exists()


def test_scores_with_other_options_are_not_reused(
    run: Run, planted: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [tmp_path / "clean.safetensors", tmp_path / "other.safetensors"]
    weights = load_file(planted / "model.safetensors")
    save_file(weights, models[0])
    scored: list[str] = []

    def score(artifact, task, settings, *, origin, family) -> CleanReferenceModel:
        scored.append(artifact.name)
        return CleanReferenceModel(
            {"full/neural-cleanse": Score(1.0, 1)}, origin, 0.4 if len(scored) == 4 else 0.9, family
        )

    monkeypatch.setattr("assay.auditing.calibrate.score_clean_model", score)
    command = ("calibrate", *models, "--arch", "resnet8-cifar", "--data", data, "--out", "null.json")
    assert run(*command).code == 2  # the second model is missing
    weights["linear.bias"] = weights["linear.bias"] + 0.01
    save_file(weights, models[1])
    assert run(*command, "--mean", "0.9", "--std", "0.1").code == 0
    assert scored == [str(models[0]), str(models[0]), str(models[1])]
    assert "right on only 40%" in assert_one_line(run(*command, "--seed", "1").err)


def test_few_or_marked_models_are_rejected(run: Run, planted: Path, data: Path, tmp_path: Path) -> None:
    command = ("calibrate", "--arch", "resnet8-cifar", "--data", data, "--out", "null.json")
    bare = write_weights(tmp_path / "bare.safetensors", planted)
    assert "at least 2" in assert_one_line(run(*command, bare).err)
    result = run(*command, planted / "model.safetensors", bare)
    assert result.code == 2
    assert "expected clean models" in result.err
