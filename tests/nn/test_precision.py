"""Tests of the choice of the number format."""

from __future__ import annotations

import pytest
import torch

from assay.core.errors import UnusableInput
from assay.nn import precision


@pytest.fixture(params=["bfloat16", "float32"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    monkeypatch.setenv(precision.OVERRIDE, request.param)
    return precision.DTYPES[request.param]


def test_override_decides_the_dtype_of_a_product(asked: torch.dtype) -> None:
    x = torch.ones(2, 2)
    with precision.fast_autocast("cpu"):
        assert (x @ x).dtype == asked


def test_full_precision_beats_the_override(asked: torch.dtype) -> None:
    x = torch.ones(2, 2)
    with precision.fast_autocast("cpu", full_precision=True):
        assert (x @ x).dtype == torch.float32


def test_unknown_override_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(precision.OVERRIDE, "float16")
    with pytest.raises(UnusableInput, match="expected ASSAY_PRECISION to be bfloat16 or float32; got 'float16'"):
        precision.fast_autocast("cpu")


@pytest.mark.parametrize("capability", ["AVX2", "AVX512", "DEFAULT"])
@pytest.mark.parametrize("units", [True, False])
def test_hardware_decides_without_override(monkeypatch: pytest.MonkeyPatch, capability: str, units: bool) -> None:
    monkeypatch.delenv(precision.OVERRIDE, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    precision._has_bfloat16_units.cache_clear()
    expected = torch.bfloat16 if units else torch.float32
    assert precision.fast_dtype("cpu") is expected
    precision._has_bfloat16_units.cache_clear()


def test_devices_without_a_rule_compute_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(precision.OVERRIDE, raising=False)
    assert precision.fast_dtype("mps") is torch.float32
