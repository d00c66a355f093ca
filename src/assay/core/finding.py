"""Finding of one detector on one variant, its outcome and its evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from torch import Tensor

# MITRE ATLAS: Manipulate AI Model: Poison AI Model. A positive finding is evidence of this technique.
BACKDOOR_TECHNIQUE = "AML.T0018.000"

FULL = "full"  # name of the variant without compression: the model as given


class Outcome(StrEnum):
    """End of one run of a detector."""

    SCORED = "scored"  # a score, to be compared with the scores of clean reference models
    CHECKED = "checked"  # a score of a detector that needs no reference models; it proves nothing
    PROVEN = "proven"  # a backdoor, shown without any reference model
    ABSTAINED = "abstained"  # the detector does not apply to this model or these samples
    INCOMPLETE = "incomplete"  # started but not ended: out of time, or no usable output of the model
    FAILED = "failed"  # an error in a detector that is compared with reference models
    CHECK_FAILED = "check failed"  # an error in a detector that needs no reference models

    @property
    def completed(self) -> bool:
        """True if the detector gave a score."""
        return self in (Outcome.SCORED, Outcome.CHECKED, Outcome.PROVEN)

    @property
    def status(self) -> Literal["ok", "abstained", "failed"]:
        """Short form in JSON documents and bench records."""
        if self.completed:
            return "ok"
        return "failed" if self in (Outcome.FAILED, Outcome.CHECK_FAILED) else "abstained"


@dataclass(frozen=True)
class GraphNode:
    """Operator of a computation graph, for display."""

    op: str
    name: str
    inputs: tuple[str, ...]  # names of values
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """Evidence for a score. Images are float32 in [0, 1]."""

    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    per_class: Mapping[int, float] = field(default_factory=dict)  # e.g. the size of the smallest trigger of each class
    mask: np.ndarray | None = None  # (H, W): position of the trigger
    trigger: np.ndarray | None = None  # (C, H, W): appearance of the trigger
    before: np.ndarray | None = None  # (M, C, H, W): clean samples
    after: np.ndarray | None = None  # (M, C, H, W): the same samples with the trigger
    predicted_before: tuple[int, ...] = ()  # predicted classes of the M clean samples; empty: not known
    predicted_after: tuple[int, ...] = ()  # predicted classes of the M triggered samples
    apply: Callable[[Tensor], Tensor] | None = None  # adds the trigger to inputs
    texts: tuple[tuple[str, str], ...] = ()  # M clean texts, each without and with the trigger
    graph: tuple[GraphNode, ...] = ()  # part of the computation graph, in the order of computation


@dataclass(frozen=True)
class Finding:
    """Result of one detector on one variant. A higher score is more suspicious."""

    detector: str
    outcome: Outcome
    variant: str = FULL
    reason: str = ""  # cause of a missing score; of a PROVEN outcome, the proof as a sentence without its first letter
    score: float | None = None
    p_value: float | None = None  # against clean reference models; None until the audit calibrates it
    target: int | None = None
    technique: str = BACKDOOR_TECHNIQUE
    seconds: float = 0.0
    evidence: Evidence = field(default_factory=Evidence)
    unmeasurable: bool = False  # True: it abstained because outputs or gradients carry no information
    doubt: str = ""  # sign of a hidden condition, as words; it rules out the verdict "clean"
    null_scores: tuple[float, ...] = ()  # scores of the clean reference models behind the p-value

    @property
    def proof(self) -> str:
        """The reason of a PROVEN outcome, else empty."""
        return self.reason if self.outcome is Outcome.PROVEN else ""
