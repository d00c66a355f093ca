"""Properties of all triggers, for random settings and images."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.triggers import TRIGGERS, Additive, Blend, Checksum, Patch, Signed, Tokens, Trigger, from_spec, to_spec
from assay.triggers.patch import COLORS, PATTERNS

SMALLEST = 12
corners = st.sampled_from(["top-left", "top-right", "bottom-left", "bottom-right", "center"])
anywhere = st.tuples(st.integers(0, SMALLEST - 6), st.integers(0, SMALLEST - 6))

patches = st.builds(
    Patch,
    size=st.integers(1, 6),
    place=corners | anywhere,
    color=st.sampled_from([*COLORS, *PATTERNS]),
    margin=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
blends = st.builds(
    Blend,
    alpha=st.floats(0.01, 0.99),
    cells=st.none() | st.integers(2, 8),
    seed=st.integers(0, 2**31),
)
triggers = patches | blends


@st.composite
def images(draw: st.DrawFn) -> Tensor:
    """Generate images (N, C, H, W) in [0, 1], sometimes of 0 and 1 only."""
    shape = (draw(st.integers(1, 3)), draw(st.sampled_from([1, 3])), *(draw(st.integers(SMALLEST, 20)) for _ in "hw"))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 1000))))
    return x.round() if draw(st.booleans()) else x


@settings(deadline=None)
@given(triggers, images())
def test_triggered_batch_keeps_shape_and_range(trigger: Trigger, x: Tensor) -> None:
    before = x.clone()
    out = trigger(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert torch.equal(x, before), "the input itself was changed"
    assert torch.equal(out, trigger(x)), "the same input gave another output"


@settings(deadline=None)
@given(patches, images())
def test_patch_is_idempotent(patch: Patch, x: Tensor) -> None:
    once = patch(x)
    assert torch.equal(patch(once), once)
    assert int((once != x).any(dim=1)[0].sum()) <= patch.size**2


@settings(deadline=None)
@given(triggers, images())
def test_images_are_independent(trigger: Trigger, x: Tensor) -> None:
    assert torch.equal(trigger(x)[:1], trigger(x[:1]))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(1, 4, 6), (3, 9, 9)]), st.integers(1, 127))
def test_additive_trigger_adds_its_pattern(seed: int, shape: tuple[int, int, int], most: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randint(-most, most + 1, shape, generator=generator) / 255
    trigger, x = Additive.of(pattern), torch.rand(5, *shape, generator=generator)
    assert torch.equal(trigger.pattern(), pattern)
    assert torch.equal(trigger(x), (x + pattern).clamp(0, 1))
    assert from_spec(json.loads(json.dumps(to_spec(trigger)))) == trigger
    assert len(json.dumps(to_spec(trigger, brief=True))) < 120


def test_pattern_of_another_size_raises() -> None:
    with pytest.raises(UnusableInput, match=r"images of shape \(3, 4, 4\) as the pattern, got \(3, 8, 8\)"):
        Additive.of(torch.zeros(3, 4, 4))(torch.zeros(1, 3, 8, 8))


@given(triggers)
def test_spec_restores_trigger(trigger: Trigger) -> None:
    assert from_spec(json.loads(json.dumps(to_spec(trigger)))) == trigger


def test_every_kind_has_a_test() -> None:
    elsewhere = {Tokens, Signed, Checksum}  # in test_tokens.py and attacks/test_graph.py
    assert set(TRIGGERS.values()) == {Patch, Blend, Additive} | elsewhere


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"kind": "spell"},
        {"kind": "patch", "colour": "red"},
        {"kind": "patch", "color": 3},
        {"kind": "blend", "alpha": 3},
        {"kind": "blend", "alpha": "much"},
        {"kind": "blend", "cells": 2.5},
        {"kind": "additive"},
        {"kind": "additive", "shape": [3, 2, 2], "steps": "?"},
        {"kind": "additive", "shape": [3, 2, 2], "steps": base64.b64encode(zlib.compress(bytes(13))).decode()},
        {"kind": "additive", "shape": [3, 2, 2], "steps": base64.b64encode(zlib.compress(bytes(11))).decode()},
        {"kind": "additive", "shape": [3, 99999, 99999], "steps": ""},
        {"kind": "additive", "shape": "huge", "steps": ""},
    ],
)
def test_malformed_spec_raises(spec: dict[str, object]) -> None:
    with pytest.raises(UnusableInput, match=r"trigger|color|alpha|cells|pattern"):
        from_spec(spec)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, 3.0, float("nan")])
def test_blend_weight_outside_the_open_interval_raises(alpha: float) -> None:
    with pytest.raises(UnusableInput, match=rf"alpha.*\(0, 1\), got {alpha}"):
        Blend(alpha=alpha)


@pytest.mark.parametrize("cells", [0, -2])
def test_blend_without_cells_raises(cells: int) -> None:
    with pytest.raises(UnusableInput, match=f"cells.*got {cells}"):
        Blend(cells=cells)
    assert bool((Blend(cells=1).pattern(1, 4, 4) == Blend(cells=1).pattern(1, 1, 1)).all())


@pytest.mark.parametrize("patch", [Patch(size=40), Patch(place=(30, 0)), Patch(place="middle")])
def test_patch_outside_the_image_raises(patch: Patch) -> None:
    with pytest.raises(UnusableInput, match=r"patch that fits|corner"):
        patch(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "patch", "place": 1e308},
        {"kind": "patch", "margin": "os:system"},
        {"kind": "patch", "size": True},
        {"kind": "patch", "place": [1, 2, 3]},
        {"kind": "patch", "seed": 10**40},
        {"kind": "blend", "seed": "[PAD]"},
        {"kind": "blend", "cells": 10**9},
    ],
    ids=str,
)
def test_setting_of_other_type_or_size_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(UnusableInput, match=r"expected .*got"):
        from_spec(spec)
