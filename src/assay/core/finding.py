"""Finding of one detector on one variant, and its evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

BACKDOOR_TECHNIQUE = "AML.T0018.000"
"""MITRE ATLAS: Manipulate AI Model: Poison AI Model. The technique that a positive finding is evidence of."""


@dataclass(frozen=True)
class GraphNode:
    """An operator of a computation graph, as a detector shows it."""

    op: str
    name: str
    inputs: tuple[str, ...]  # names of values
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What a detector shows for its score. Pictures are float32 in [0, 1]."""

    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    per_class: Mapping[int, float] = field(default_factory=dict)  # e.g. the smallest trigger's size by class
    mask: np.ndarray | None = None  # (H, W): where the trigger acts
    trigger: np.ndarray | None = None  # (C, H, W): what it looks like
    before: np.ndarray | None = None  # (M, C, H, W): clean samples
    after: np.ndarray | None = None  # (M, C, H, W): the same samples, triggered
    said_before: tuple[int, ...] = ()  # the classes that the model gave the M clean samples; empty: not known
    said_after: tuple[int, ...] = ()  # and the triggered ones
    apply: Callable[[Tensor], Tensor] | None = None  # the trigger itself, on inputs
    texts: tuple[tuple[str, str], ...] = ()  # M clean samples without and with the trigger, where they are texts
    graph: tuple[GraphNode, ...] = ()  # a part of the computation graph, in the order of computation


@dataclass(frozen=True)
class Finding:
    """What one detector says about one variant. A higher score is more suspicious."""

    detector: str
    status: Literal["ok", "abstained", "failed"]
    variant: str = "full"
    reason: str = ""  # why it abstained or failed
    score: float | None = None
    p_value: float | None = None  # against clean reference models; None until the audit has calibrated it
    target: int | None = None
    technique: str = BACKDOOR_TECHNIQUE
    seconds: float = 0.0
    evidence: Evidence = field(default_factory=Evidence)
    null_scores: tuple[float, ...] = ()  # the clean reference models' scores that the p-value comes from
    unfinished: bool = False  # it abstained half-way: what it would have said is not known
    compared: bool = True  # its score means something beside those of clean models only
    proof: str = ""  # of one that is not compared: what it found, as a sentence without its first letter
