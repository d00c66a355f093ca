"""``-o preset=NAME``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.attacks import BadNets, TransTroj
from assay.bench.spec import parse
from assay.core.config import configured, presets_of
from assay.core.errors import UnusableInput
from assay.registry import ATTACKS


@pytest.mark.parametrize("name", [name for name, kind in ATTACKS.items() if presets_of(kind)])
def test_every_preset_is_made_of_settings_that_there_are(name: str) -> None:
    kind = ATTACKS[name]
    given = ["references=x"] if "references" in kind.__dataclass_fields__ else []
    plain = configured(kind, given)
    for preset in presets_of(kind):
        found = configured(kind, [*given, f"preset={preset}"])
        assert (found == plain) == (preset == "paper"), "the paper's are the defaults"


def test_what_is_said_beside_a_preset_counts_first() -> None:
    small = configured(TransTroj, ["references=x", "preset=small"])
    other = configured(TransTroj, ["keep=7", "references=x", "preset=small"])
    assert other == replace(small, keep=7.0)


def test_a_preset_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(UnusableInput, match="-o preset: expected paper or small, came 'large'"):
        configured(TransTroj, ["references=x", "preset=large"])
    with pytest.raises(UnusableInput, match="-o preset: there is no such setting"):
        configured(BadNets, ["preset=small"])
    with pytest.raises(UnusableInput, match=r"did you mean preset\?.*known: .*preset"):
        configured(TransTroj, ["references=x", "presets=small"])


def test_a_spec_takes_presets() -> None:
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
    assert spec.attacks["a"].attack() == configured(TransTroj, ["references=x", "preset=small", "concept=1"])
