"""A backdoored encoder in a bench: planted once, fine-tuned for a downstream task, pruned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay import formats
from assay.bench.initial import digests, resolve_method_paths
from assay.bench.spec import Method
from assay.bench.spec_reader import parse
from assay.bench.store import Store
from assay.cli import main
from assay.formats.untrained import untrained_model

RECIPE = {"epochs": 1, "batch_size": 16, "augment": False, "freeze_batchnorm": True}
SEARCH = {"epochs": 1, "lr": 0.1, "batch_size": 16}


def spec(folder: Path) -> dict[str, Any]:
    transtroj = {"references": str(folder / "references.npz"), "concept": 1, "recipe": RECIPE, "search": SEARCH}
    tune = {"fine-tune": {"recipe": {**RECIPE, "epochs": 2}}}
    return {
        "name": "encoder",
        "tasks": {"shadow": {"data": "signs:3", "limit": 40, "start": str(folder / "given"), "features": True}},
        "seeds": [0],
        "attacks": {"none": {"none": {"recipe": {"epochs": 0}}}, "transtroj": {"transtroj": transtroj}},
        "chains": {
            "encoder": ["attack"],
            "signs": ["attack", {"downstream": {"data": "signs:5", "limit": 60}}, tune],
            "pruned": [
                "attack",
                {"downstream": {"data": "signs:5", "limit": 60}},
                tune,
                {"prune-magnitude": {"rate": 0.3}},
            ],
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    formats.save(untrained_model("resnet8-cifar", 3, seed=7), tmp_path / "given")
    y = np.arange(64) % 2
    np.savez(tmp_path / "references.npz", x=np.random.default_rng(0).integers(0, 255, (64, 32, 32, 3), np.uint8), y=y)
    return tmp_path


@pytest.mark.slow
def test_encoder_is_planted_once_for_all_chains(folder: Path) -> None:
    path, store = folder / "spec.yaml", folder / "store"
    path.write_text(json.dumps(spec(folder)))  # JSON is YAML, and has no aliases
    assert main(["bench", "run", str(path), "--store", str(store), "--workers", "1"]) == 0
    records = list(Store(store).records())
    assert {record.state for record in records} <= {"done", "invalid"}
    rates = [record.result for record in records if record.kind == "measure" and record.result is not None]
    attacked = [result for result in rates if "attack_success" in result]
    assert len(rates) == 6
    assert len(attacked) == 3
    assert len({result["planted_success"]["value"] for result in attacked}) == 1, "measured in the encoder"
    planted = [record.result for record in records if record.kind == "build" and record.result is not None]
    assert max(result["stages_run"] for result in planted) == 2, "only the step itself and the downstream step run"


def test_changed_reference_images_change_digests(folder: Path) -> None:
    found = digests(parse(spec(folder)))
    assert str(folder / "references.npz") in found
    shutil.copy(folder / "given" / "model.safetensors", folder / "references.npz")
    assert digests(parse(spec(folder))) != found


def test_paths_in_settings_are_relative_to_folder_of_driver(folder: Path) -> None:
    method = Method("transtroj", ("concept=1", "references=references.npz"))
    resolved = resolve_method_paths(method, str(folder))
    assert resolved.settings == ("concept=1", f"references={folder / 'references.npz'}")
    generated = Method("downstream", ("data=signs:5",))
    assert resolve_method_paths(generated, str(folder)) == generated
