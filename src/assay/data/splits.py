"""Checks of a reader's splits, and the calibration split for data without one."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.request import KNOWN_SPLITS, carved_from

# Smaller data sets stay whole: halves of so few samples are of no use.
MIN_SAMPLES_TO_CARVE = 64

# Largest calibration split without a limit, in samples.
MAX_CALIBRATION_SAMPLES = 2048


def drop_empty(splits: Mapping[str, Split], name: str) -> Mapping[str, Split]:
    """Return the splits with samples.

    Args:
        splits: Splits by name.
        name: Name of the data set, for the error message.

    Raises:
        UnusableInput: All splits are empty.
    """
    kept = {split: part for split, part in splits.items() if len(part)}
    if not kept:
        raise UnusableInput(f"{name}: expected samples, got an empty data set")
    return kept


def carve_calibration(splits: Mapping[str, Split], *, limit: int | None, seed: int) -> Mapping[str, Split]:
    """Return the splits with a calibration split; ``assay.data`` describes the rule.

    Args:
        splits: Splits by name.
        limit: Largest number of samples of each split, or None.
        seed: Seed of the random draw.
    """
    result = dict(splits)
    source = carved_from(list(result))
    if source is not None:
        part = result.pop(source)
        complete = limit is None or len(part) < 2 * limit  # readers return up to twice the limit
        if not result and len(part) < MIN_SAMPLES_TO_CARVE and complete:
            result["calibration"] = part
        else:
            count = min(MAX_CALIBRATION_SAMPLES, len(part) // 5) if limit is None else min(limit, len(part) // 2)
            # A draw of indices: calibration is balanced over the classes, and the rest keeps its order.
            index = Split(torch.arange(len(part)), part.y).sample(max(1, count), seed=seed).x
            left = torch.ones(len(part), dtype=torch.bool)
            left[index] = False
            result["train" if source == "all" else source] = part.take(left.nonzero().squeeze(1))
            result["calibration"] = part.take(index)
    if limit is not None:
        result = {name: part.sample(limit, seed=seed) for name, part in result.items()}
    order = [*KNOWN_SPLITS, *(name for name in result if name not in KNOWN_SPLITS)]
    return {name: result[name] for name in order if name in result and len(result[name])}
