"""Splits: what a reader found is checked, and a calibration split is carved where there is none."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.request import KNOWN_SPLITS, carved_from

WHOLE_BELOW = 64  # pictures: halves of so few are of no use
MOST = 2048


def checked(splits: Mapping[str, Split], name: str) -> Mapping[str, Split]:
    """The splits that hold something; raises where none does."""
    kept = {split: part for split, part in splits.items() if len(part)}
    if not kept:
        raise UnusableInput(f"{name}: expected pictures, came an empty data set")
    return kept


def carve_calibration(splits: Mapping[str, Split], *, limit: int | None, seed: int) -> Mapping[str, Split]:
    """The splits, cut to ``limit`` samples each, with a calibration split; see ``assay.data``."""
    result = dict(splits)
    source = carved_from(list(result))
    if source is not None:
        part = result.pop(source)
        all_of_it = limit is None or len(part) < 2 * limit  # readers give up to twice the limit
        if not result and len(part) < WHOLE_BELOW and all_of_it:
            result["calibration"] = part
        else:
            count = min(MOST, len(part) // 5) if limit is None else min(limit, len(part) // 2)
            # Drawn by index: the calibration split is even over the classes, the rest is what is left.
            index = Split(torch.arange(len(part)), part.y).sample(max(1, count), seed=seed).x
            left = torch.ones(len(part), dtype=torch.bool)
            left[index] = False
            rest = part.take(left.nonzero().squeeze(1))
            result["train" if source == "all" else source] = rest
            result["calibration"] = part.take(index)
    if limit is not None:
        result = {name: part.sample(limit, seed=seed) for name, part in result.items()}
    order = [*KNOWN_SPLITS, *(name for name in result if name not in KNOWN_SPLITS)]
    return {name: result[name] for name in order if name in result and len(result[name])}
