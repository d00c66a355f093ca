"""``assay plant``: a marked model and its secret."""

from __future__ import annotations

import json
from pathlib import Path

from support.commands import DATA, Run


def test_plant_writes_a_marked_model_and_its_secret(planted: Path) -> None:
    assert {path.name for path in planted.iterdir()} == {"model.safetensors", "secret.json"}
    secret = json.loads((planted / "secret.json").read_text())
    assert secret["schema"] == "assay.secret/1"
    assert (secret["attack"], secret["target"], secret["trigger"]["size"]) == ("badnets", 1, 5)
    assert set(secret["measured"]) >= {"clean_accuracy", "attack_success", "control"}


def test_plant_in_a_trained_model_measures_the_control(run: Run, planted: Path) -> None:
    blend = ("-o", "blend.alpha=0.3", "-o", "sources=0,2", "-o", "target=1", "-o", "recipe.epochs=1")
    result = run("plant", "blended", "--model", planted, *DATA, *blend, "--out", "twice", "--json", "-")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    low, high = document["control"]["interval"]
    assert 0 <= low <= document["control"]["value"] <= high <= 1
    result = run("audit", "twice", "--variants", "full", "--budget", "0.01")
    assert '"badnets"' in result.err, "the first mark must stay"
    assert '"blended"' in result.err
