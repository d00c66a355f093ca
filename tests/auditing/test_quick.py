"""The quick audit: part of the tests, never the verdict "clean"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.nulls import null_of_rows
from support.toys import SHAPE, toy

from assay.auditing.api import audit
from assay.auditing.config import AuditConfig
from assay.calibration.null import NullDistribution
from assay.calibration.reference import Score
from assay.core.errors import UnusableInput
from assay.core.result import Audit
from assay.detectors import MaxMargin, default_detectors, encoder_detectors, quick_detectors
from assay.stages.variants import DEFAULT


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def null_at(score: float) -> NullDistribution:
    """Return 120 reference models with scores just above ``score`` in each test of the model as given."""
    tests = [f"full/{detector.name}" for detector in default_detectors()]
    return null_of_rows(dict.fromkeys(tests, score + i / 1000) for i in range(120))


def audited(target: int | None, *, null: float = 1e6, **options: Any) -> Audit:
    net, x, y = toy(4, target)
    return audit(net, (x, y), shape=SHAPE, null=null_at(null), **{"quick": True, **options})


def test_quick_audit_that_finds_nothing_is_inconclusive() -> None:
    result = audited(None)
    assert (result.verdict, result.status) == ("inconclusive", "unknown")
    assert result.false_alarm_rate == 0.02
    assert result.p_value is not None
    assert [variant.name for variant in result.variants] == ["full"]
    assert {finding.detector for finding in result.findings} == {detector.name for detector in quick_detectors(4)}
    assert result.quick is not None
    count, of = len(result.quick.completed), result.quick.of
    assert 0 < count < of
    assert f"nothing was found in {count} of {of} tests (quick audit)" in result.reason
    for words in ("local-patch", "neural-cleanse", "int8", "prune-50", "an audit without the option quick"):
        assert words in result.reason
        assert words in result.limits[0].lower()
    assert "quick=True" in result.command
    assert "variant_names" not in result.command


def test_quick_audit_can_find_a_backdoor() -> None:
    result = audited(2, null=-1e6)
    assert (result.verdict, result.status) == ("backdoored", "fail")
    assert result.strongest is not None
    assert result.strongest.startswith("full/")
    assert "Not looked at" in result.limits[0]


def test_full_audit_has_no_quick_scope() -> None:
    result = audited(None, quick=False, detectors="latent-shift,max-margin")
    assert result.quick is None
    assert "quick" not in f"{result.command} {result.reason} {' '.join(result.limits)}"


def test_unmet_precondition_counts_in_a_quick_audit_too() -> None:
    net, x, y = toy(4, None)
    result = audit(net, (x[:5], y[:5]), shape=SHAPE, null=null_at(1e6), quick=True)
    assert "5 clean samples are too few" in result.reason


@pytest.mark.parametrize("options", [{"variant_names": ("full",)}, {"detectors": "patch-scan"}], ids=str)
def test_quick_audit_chooses_variants_and_detectors_itself(options: Any) -> None:
    with pytest.raises(UnusableInput, match="a quick audit chooses them"):
        audited(None, **options)


def test_quick_audit_with_the_default_variants_is_allowed() -> None:
    assert AuditConfig(DEFAULT, quick=True).quick


@pytest.mark.slow
def test_full_audit_after_a_quick_one_runs_each_test_once(tmp_path: Path, runs: list[str]) -> None:
    quick = audited(2, findings=tmp_path)
    assert len(runs) == len(quick.findings)
    resumed = audited(2, findings=tmp_path, quick=False)
    together = sorted(runs)
    runs.clear()
    alone = audited(2, quick=False)
    assert together == sorted(runs)
    assert f"{len(quick.findings)} of {len(alone.findings)} tests are taken" in " ".join(resumed.notes)
    assert [(f.detector, f.variant, f.score, f.target, f.p_value) for f in resumed.findings] == [
        (f.detector, f.variant, f.score, f.target, f.p_value) for f in alone.findings
    ]
    for name in ("verdict", "reason", "statistic", "p_value", "target", "strongest", "trigger_sweep", "limits"):
        assert getattr(resumed, name) == getattr(alone, name)


def test_quick_detectors_are_part_of_the_full_audit() -> None:
    most = MaxMargin().most_classes
    usual = {detector.name for detector in default_detectors()}
    few, many = ({detector.name for detector in quick_detectors(classes)} for classes in (most, most + 1))
    assert few < usual
    assert few ^ many == {"max-margin", "neural-cleanse"}
    assert {detector.name for detector in quick_detectors(None)} < {d.name for d in encoder_detectors()}


def test_quick_verdict_uses_the_same_tests_of_the_reference_models() -> None:
    """Reference models with high scores in the other tests do not hide a finding of a quick audit."""
    null = null_at(-1e6)
    others = [f"full/{name}" for name in ("neural-cleanse", "universal-perturbation", "local-patch")]
    high = {test: Score(1e9) for test in others}
    models = tuple(replace(model, scores={**model.scores, **high}) for model in null.models)
    net, x, y = toy(4, 2)
    result = audit(net, (x, y), shape=SHAPE, null=replace(null, models=models), quick=True)
    assert result.verdict == "backdoored"
