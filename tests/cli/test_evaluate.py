"""``assay evaluate``: measurements of a known backdoor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import DATA, Run, assert_one_line
from support.texts import write_data, write_encoder


def test_evaluate_repeats_the_measurements_of_plant(run: Run, planted: Path) -> None:
    result = run("evaluate", planted, "--secret", planted / "secret.json", *DATA, "--json", "-")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    secret = json.loads((planted / "secret.json").read_text())
    assert document["same_file"] is True
    assert document["attack_success"] == secret["measured"]["attack_success"], "the same data gives the same answer"
    assert "95 % interval" in result.err


def test_clean_model_is_the_control(run: Run, planted: Path) -> None:
    result = run(
        "evaluate", planted, "--secret", planted / "secret.json", *DATA, "--clean", planted, "--json", "e.json"
    )
    assert (result.code, result.out) == (0, "")
    document = json.loads(Path("e.json").read_text())
    assert document["control"] == document["attack_success"]


def test_target_outside_the_model_is_rejected(run: Run, planted: Path) -> None:
    secret = json.loads((planted / "secret.json").read_text())
    Path("s.json").write_text(json.dumps({**secret, "target": 77}))
    result = run("evaluate", planted, "--secret", "s.json", *DATA)
    assert result.code == 2
    assert "expected a secret with a target in [0, " in result.err
    assert "got 77" in result.err


def test_encoder_needs_a_clean_encoder(run: Run, planted: Path) -> None:
    result = run("evaluate", planted, "--features", "--secret", planted / "secret.json", *DATA)
    assert result.code == 2
    assert "Fix: add --clean" in result.err


def test_tokens_outside_the_vocabulary_are_rejected(run: Run, planted: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    data = write_data(tmp_path / "texts")
    secret = json.loads((planted / "secret.json").read_text())
    trigger = {"kind": "tokens", "ids": [999], "words": "odd", "end": 3, "pad": 0}
    details = {"embedding": [0.5] * 16}
    Path("s.json").write_text(json.dumps({**secret, "target": None, "trigger": trigger, "details": details}))
    options = ("--shape", "10", "--data", data, "--clean", encoder)
    result = run("evaluate", encoder, "--secret", "s.json", *options)
    assert result.code == 2
    assert "expected trigger tokens below 14, the vocabulary of the model; got 999" in result.err


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"schema": "assay.secret/1"}'])
def test_unusable_secret_gives_one_line(run: Run, planted: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    result = run("evaluate", planted, "--secret", "s.json", *DATA)
    assert result.code == 2
    assert "s.json" in assert_one_line(result.err)
