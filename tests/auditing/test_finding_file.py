"""Files of stored findings."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from assay.auditing import finding_file
from assay.auditing.finding_file import NotStorable, StoredFinding, read_finding, write_finding
from assay.core.errors import UnusableInput
from assay.core.finding import Evidence, Finding, GraphNode, Outcome
from assay.inversion.families import FamilyTrigger, MaskFamily, WindowFamily
from assay.triggers.tokens import Tokens

CIRCUMSTANCES = {"model": ["ab", "cd"], "seed": 0}
PARAMETERS = (torch.rand(1, 1, 8, 8), torch.rand(1, 3, 8, 8))
EVIDENCE = Evidence(
    numbers={"success": 0.1 + 0.2, "steps": 3, "trigger": "a square", "odds": math.inf, "gap": np.float32(0.5)},
    per_class={0: 0.25, 3: math.nan},
    mask=np.random.default_rng(0).random((8, 8), dtype=np.float32),
    trigger=np.ones((3, 8, 8), np.float32),
    before=np.zeros((2, 3, 8, 8), np.float32),
    after=np.ones((2, 3, 8, 8), np.float32),
    predicted_before=(0, 1),
    predicted_after=(3, 3),
    apply=FamilyTrigger(MaskFamily(), PARAMETERS),
    texts=(("clean", "cf clean"),),
    graph=(GraphNode("Add", "add_1", ("x", "w"), ("y",)),),
)
FINDING = Finding(
    "neural-cleanse",
    Outcome.SCORED,
    variant="prune-2:4",
    score=1 / 3,
    target=3,
    seconds=1.5,
    evidence=EVIDENCE,
    doubt="a sign of a hidden condition \N{SNOWMAN}",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stored(folder: Path, finding: Finding = FINDING) -> Finding:
    write_finding(folder, StoredFinding(finding, CIRCUMSTANCES, "2026-01-01 12:00 UTC"))
    found = read_finding(folder, finding.variant, finding.detector)
    assert found is not None
    assert (found.circumstances, found.made) == (CIRCUMSTANCES, "2026-01-01 12:00 UTC")
    return found.finding


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert all(a == b or (a != a and b != b) for a, b in zip(one.values(), other.values(), strict=True))
    else:
        assert one == other
        assert type(one) is type(other)


def test_finding_and_its_evidence_are_read_as_written(tmp_path: Path) -> None:
    found = stored(tmp_path)
    for field in fields(Finding):
        if field.name != "evidence":
            assert_same(getattr(FINDING, field.name), getattr(found, field.name))
    for field in fields(Evidence):
        if field.name != "apply":
            assert_same(getattr(EVIDENCE, field.name), getattr(found.evidence, field.name))
    x = torch.rand(5, 3, 8, 8)
    assert EVIDENCE.apply is not None
    assert found.evidence.apply is not None
    assert torch.equal(found.evidence.apply(x), EVIDENCE.apply(x))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_finding_without_evidence_has_one_file(tmp_path: Path, outcome: Outcome) -> None:
    finding = Finding("graph", outcome, reason="needs clean samples", unmeasurable=True)
    assert stored(tmp_path / "new" / "folder", finding) == finding
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["full-graph.json"]


def test_text_trigger_is_read_as_written(tmp_path: Path) -> None:
    trigger = Tokens(ids=(7, 8), words="cf mn", end=2, pad=0)
    found = stored(tmp_path, replace(FINDING, evidence=Evidence(apply=trigger)))
    assert found.evidence.apply == trigger


def test_trigger_of_a_window_is_read_as_written(tmp_path: Path) -> None:
    family = WindowFamily(overlap=False)
    trigger = FamilyTrigger(family, family.initialize(1, (3, 8, 8), torch.Generator().manual_seed(0)))
    found = stored(tmp_path, replace(FINDING, evidence=Evidence(apply=trigger)))
    x = torch.rand(2, 3, 8, 8)
    assert found.evidence.apply is not None
    assert torch.equal(found.evidence.apply(x), trigger(x))


class OwnFamily(MaskFamily):
    pass


def unchanged(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(apply=unchanged),
        Evidence(apply=FamilyTrigger(OwnFamily(), PARAMETERS)),
        Evidence(numbers={"name": "\udcff"}),
    ],
    ids=["a function", "another family", "no valid Unicode"],
)
def test_finding_with_unknown_content_is_not_storable(tmp_path: Path, evidence: Evidence) -> None:
    with pytest.raises(NotStorable):
        write_finding(tmp_path, StoredFinding(replace(FINDING, evidence=evidence), {}, ""))
    assert read_finding(tmp_path, FINDING.variant, FINDING.detector) is None


def test_large_arrays_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding_file, "MAX_ARRAY_BYTES", 1000)
    with pytest.raises(NotStorable):
        write_finding(tmp_path, StoredFinding(FINDING, {}, ""))


def test_new_finding_replaces_the_old_one(tmp_path: Path) -> None:
    stored(tmp_path)
    assert stored(tmp_path, replace(FINDING, score=2.0, evidence=Evidence())).score == 2.0


JSON_FILE, ARRAYS = "prune-2-4-neural-cleanse.json", "prune-2-4-neural-cleanse.npz"


def other_score(text: str) -> str:
    assert '"target": 3' in text
    return text.replace('"target": 3', '"target": 2')


def without_seal(text: str) -> str:
    return json.dumps({key: value for key, value in json.loads(text).items() if key != "seal"})


DAMAGES = {
    "changed": other_score,
    "no seal": without_seal,
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[1]",
    "another schema": lambda text: text.replace("assay.finding/1", "assay.finding/9"),
    "nested": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_json_file_one_line_error(tmp_path: Path, damage: Any) -> None:
    stored(tmp_path)
    path = tmp_path / JSON_FILE
    path.write_text(damage(path.read_text()))
    with pytest.raises(UnusableInput) as error:
        read_finding(tmp_path, FINDING.variant, FINDING.detector)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "changed", "a folder", "too large"])
def test_damaged_arrays_one_line_error(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path)
    path = tmp_path / ARRAYS
    content = path.read_bytes()
    if damage == "too large":
        monkeypatch.setattr(finding_file, "MAX_ARRAY_BYTES", 1000)
    else:
        path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-1] + b"\1")
    if damage == "a folder":
        path.mkdir()
    with pytest.raises(UnusableInput):
        read_finding(tmp_path, FINDING.variant, FINDING.detector)


def test_file_of_another_user_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(UnusableInput, match="another user"):
        read_finding(tmp_path, FINDING.variant, FINDING.detector)
