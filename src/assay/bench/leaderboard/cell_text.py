"""Parts of a cell as text: steps, data and initial model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay.bench.spec import Method, TaskSpec


def steps_text(steps: Sequence[Method]) -> str:
    """Return steps as ``train (epochs=3) > badnets``."""
    return " > ".join(f"{step.name} ({', '.join(step.settings)})" if step.settings else step.name for step in steps)


def data_text(task: TaskSpec) -> str:
    """Return the data as ``signs:10, at most 3,000 samples a split``."""
    return task.data + (f", at most {task.limit:,} samples a split" if task.limit else "")


def initial_model_text(task: TaskSpec) -> str:
    """Return the model before the first step, as in ``untrained resnet20-cifar``."""
    if task.start is not None:
        return task.start + (f" ({task.arch})" if task.arch else "")
    return f"untrained {task.arch}" if task.models is None else f"models of {task.models}"


def is_rate(value: Any) -> bool:
    """Return True for a rate with its interval, as ``metrics.Rate`` writes it."""
    return isinstance(value, Mapping) and {"value", "interval", "samples"} <= set(value)
