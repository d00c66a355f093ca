"""Choice of the number format for searches and training: bfloat16 where the hardware computes it, else float32."""

from __future__ import annotations

import os
from functools import cache
from typing import Final

import torch

from assay.core.errors import UnusableInput

OVERRIDE: Final = "ASSAY_PRECISION"  # environment variable
DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def fast_autocast(device: torch.device | str, *, full_precision: bool = False) -> torch.autocast:
    """Return the autocast context in which this machine computes fastest.

    The environment variable ``ASSAY_PRECISION`` (``bfloat16`` or ``float32``) overrides the choice.

    Args:
        device: Device of the model, or its type.
        full_precision: Compute in float32 on every machine.

    Returns:
        A bfloat16 autocast, or a disabled one for float32.

    Raises:
        UnusableInput: The environment variable has another value.
    """
    kind = torch.device(device).type
    enabled = not full_precision and fast_dtype(kind) is torch.bfloat16
    return torch.autocast(kind, torch.bfloat16, enabled=enabled)


def fast_dtype(device_type: str = "cpu") -> torch.dtype:
    """Return the format for searches and training on ``device_type``: ``torch.bfloat16`` or ``torch.float32``."""
    asked = os.environ.get(OVERRIDE, "")
    if not asked:
        return torch.bfloat16 if _has_bfloat16_units(device_type) else torch.float32
    if asked not in DTYPES:
        raise UnusableInput(f"expected {OVERRIDE} to be {' or '.join(DTYPES)}; got {asked!r}. Fix: set or unset it")
    return DTYPES[asked]


@cache
def _has_bfloat16_units(device_type: str) -> bool:
    """Check for bfloat16 hardware. Emulated convolutions take 12 times as long as in float32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    if torch.backends.cpu.get_cpu_capability().startswith(("AVX", "DEFAULT", "NO AVX")):
        # PyTorch calls bfloat16 supported on every AVX-512 processor, also where oneDNN emulates it.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
