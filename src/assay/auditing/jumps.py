"""Jumps: a small change of the images moves an answer or an inner value more than a larger change does.

A gate that opens for images between 8-bit steps jumps. A channel of a clean model can do so for a few samples by
chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from assay.auditing.trace_comparison import Change, largest_switch, nan_differs, span_of
from assay.graphs.execution_trace import ExecutionTrace, Tracer

# A jump of the answers: a fraction of the span of the logits, and a multiple of the change by a larger step.
MIN_JUMP, JUMP_RATIO, MIN_JUMPS = 0.25, 2.0, 2

Edit = Callable[[Tensor], Tensor]  # images to changed images


class Found(NamedTuple):
    """A difference, before the name of its way is known."""

    kind: str
    sentence: str
    numbers: Mapping[str, float | int | str] = {}
    inputs: int = 0


@dataclass(frozen=True)
class TracedImages:
    """Images and a larger change, traced on demand.

    Args:
        tracer: Tracer of the model.
        rows: Images, half of them with a patch.
        large: The larger change.
        known: Traces ``together`` and ``alone``, if they are made.
    """

    tracer: Tracer
    rows: Tensor
    large: Edit
    known: tuple[ExecutionTrace, ExecutionTrace] | None = None

    @cached_property
    def together(self) -> ExecutionTrace:
        """Trace of all images in one batch."""
        return self.known[0] if self.known else self.tracer.run(self.rows)

    @cached_property
    def alone(self) -> ExecutionTrace:
        """Traces of two clean images, each asked alone."""
        return self.known[1] if self.known else self.tracer.run_alone(self.rows)

    @cached_property
    def far_together(self) -> ExecutionTrace:
        """As ``together``, after the larger change."""
        return self.tracer.run(self.large(self.rows))

    @cached_property
    def far_alone(self) -> ExecutionTrace:
        """As ``alone``, after the larger change."""
        return self.tracer.run_alone(self.large(self.rows))

    def calls(self, edit: Edit, alone: bool) -> tuple[ExecutionTrace, ExecutionTrace, ExecutionTrace]:
        """Return the traces of the images, after a small change, and after the larger one.

        Args:
            edit: The small change.
            alone: Ask two images, each alone, and not all in one batch.
        """
        if alone:
            return self.alone, self.tracer.run_alone(edit(self.rows)), self.far_alone
        return self.together, self.tracer.run(edit(self.rows)), self.far_together


@dataclass(frozen=True)
class JumpSearch:
    """Search for a jump after small changes of images.

    Args:
        images: The images.
        others: Returns other images with the same larger change; None: there are too few samples.
        where: Place of the changed images, for people.
        sorted_values: Returns the names of the values whose rows follow no sample.
    """

    images: TracedImages
    others: Callable[[], TracedImages] | None
    where: str
    sorted_values: Callable[[], frozenset[str]]

    def find(self, small: Mapping[str, Edit]) -> list[Found]:
        """Compare small changes of the images with the larger one, in a batch and alone.

        Args:
            small: Small changes by name. The first is tried on single images too.

        Returns:
            The first jump, if there is any.
        """
        for number, (name, edit) in enumerate(small.items()):
            for alone in (False, True) if number == 0 else (False,):
                found, switch = self._jump(self.images, edit, alone)
                if found is not None and (switch is None or self._repeats(switch, edit, alone)):
                    numbers = {**found.numbers, "changed by": name}
                    return [found._replace(numbers=numbers, inputs=2 if alone else len(self.images.rows))]
        return []

    def _repeats(self, switch: Change, edit: Edit, alone: bool) -> bool:
        """Return whether an inner value jumps with other images too; True without other images.

        One of thousands of channels can jump by chance for a few samples. A gate jumps for all.

        Args:
            switch: The jump.
            edit: The small change.
            alone: Ask single images.
        """
        return self.others is None or self._jump(self.others(), edit, alone, only=switch)[0] is not None

    def _jump(
        self, images: TracedImages, edit: Edit, alone: bool, *, only: Change | None = None
    ) -> tuple[Found | None, Change | None]:
        """Return the jump of an answer or of an inner value, and that inner value.

        Args:
            images: The images.
            edit: The small change.
            alone: Ask single images.
            only: The only channel of an inner value to look at.
        """
        base, near, last = traces = images.calls(edit, alone)
        answers = [trace.output.float() for trace in traces]
        if (found := next(self._answer_jumps(answers[0], answers[1], answers[2]), None)) is not None:
            return found, None
        if near.steps != base.steps:
            kind = "inside" if last.steps == base.steps else "not compared"
            return Found(kind, f"the model runs other operators for images {self.where}"), None
        half = len(images.rows) // 2
        # The clean images, and the images with the same patch.
        groups = [range(2)] if alone else [range(half), range(half, half + 3)]
        switch = largest_switch(traces, images.together, groups, only=only)
        if switch.size > 1:
            switch = largest_switch(traces, images.together, groups, self.sorted_values(), only)
        if switch.size <= 1:
            return None, None
        numbers: dict[str, float | int | str] = {
            "value": switch.name,
            "channel": switch.channel,
            "ratio": switch.size,
        }
        return Found("inside", f"an inner value jumps for images {self.where} ({switch.name})", numbers), switch

    def _answer_jumps(self, base: Tensor, near: Tensor, far: Tensor) -> Iterator[Found]:
        """Yield a jump of the answers (N, K) after a small change, compared with a larger one."""
        if count := int(nan_differs(base, near).sum()):
            yield Found("answers", f"the model outputs NaN or infinity for {count} of {len(base)} images {self.where}")
        small, large = ((part - base).abs().nan_to_num(nan=0.0).amax(1) for part in (near, far))
        jumps = small > torch.maximum(JUMP_RATIO * large, MIN_JUMP * span_of(base))
        if int(jumps.sum()) >= MIN_JUMPS:
            classes = int((jumps & (near.argmax(1) != base.argmax(1))).sum())
            sentence = f"the answers jump for {int(jumps.sum())} of {len(base)} images {self.where}"
            yield Found("answers", sentence, {"other classes": classes})
