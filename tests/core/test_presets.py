"""Tests of ``preset=NAME`` among the settings of attacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.attacks import BadNets, TransTroj
from assay.bench.spec_reader import parse
from assay.core.config import configure, presets_of
from assay.core.errors import UnusableInput
from assay.registry import ATTACKS


@pytest.mark.parametrize("name", [name for name, kind in ATTACKS.items() if presets_of(kind)])
def test_each_preset_holds_known_settings(name: str) -> None:
    kind = ATTACKS[name]
    given = ["references=x"] if "references" in kind.__dataclass_fields__ else []
    plain = configure(kind, given)
    for preset in presets_of(kind):
        attack = configure(kind, [*given, f"preset={preset}"])
        assert (attack == plain) == (preset == "paper"), "the preset paper equals the defaults"


def test_explicit_settings_override_the_preset() -> None:
    small = configure(TransTroj, ["references=x", "preset=small"])
    other = configure(TransTroj, ["keep=7", "references=x", "preset=small"])
    assert other == replace(small, keep=7.0)


def test_unknown_preset_is_a_clear_error() -> None:
    with pytest.raises(UnusableInput, match="setting preset: expected paper or small, got 'large'"):
        configure(TransTroj, ["references=x", "preset=large"])
    with pytest.raises(UnusableInput, match="there is no such setting: preset"):
        configure(BadNets, ["preset=small"])
    with pytest.raises(UnusableInput, match=r"did you mean preset\?.*known: .*preset"):
        configure(TransTroj, ["references=x", "presets=small"])


def test_spec_accepts_presets() -> None:
    attack = {"transtroj": {"preset": "small", "references": "x", "concept": 1}}
    spec = parse(
        {
            "name": "s",
            "tasks": {"t": {"data": "signs:4", "arch": "resnet8-cifar"}},
            "seeds": [0],
            "attacks": {"a": attack},
            "chains": {"c": ["attack"]},
        }
    )
    assert spec.attacks["a"].attack() == configure(TransTroj, ["references=x", "preset=small", "concept=1"])
