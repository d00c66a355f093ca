"""Tests of settings as ``key=value``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from assay.core.config import configure
from assay.core.errors import UnusableInput


@dataclass(frozen=True)
class Inner:
    size: int = 3
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    target: int
    inner: Inner = Inner()
    sources: tuple[int, ...] | None = None
    mode: Literal["fast", "slow"] = "fast"
    mirror: bool = False


def test_settings_reach_fields_and_nested_fields() -> None:
    pairs = ["target=2", "inner.size=7", "sources=0, 2", "mode=slow", "mirror=yes"]
    assert configure(Outer, pairs) == Outer(2, Inner(size=7), (0, 2), "slow", True)
    assert configure(Outer, ["target=2", "sources=none"]).sources is None


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "expected the setting target=VALUE, which has no default"),
        (["target"], "expected a setting as key=value, got 'target'"),
        (["target=1", "target=2"], "expected the setting target once, got it twice"),
        (["target=1", "size=2"], r"no such setting: size; did you mean inner\.size\?"),
        (["target=x"], "setting target: expected a whole number, got 'x'"),
        (["target=1", "inner.rate=nan"], r"setting inner\.rate: expected a number, got 'nan'"),
        (["target=1", "mode=medium"], "setting mode: expected fast or slow, got 'medium'"),
    ],
)
def test_unusable_setting_is_a_clear_error(pairs: list[str], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        configure(Outer, pairs)
