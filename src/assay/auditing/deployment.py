"""Deployment check: the same inputs, asked in the ways in which a deployed model is asked.

A backdoor can hide behind a condition that an audit does not meet. Examples are a batch of one image, images on whole
8-bit steps, a range of values, the n-th call, or several triggered images in one batch. On clean images such a model
may answer the same in all ways. Therefore the check compares the intermediate values too.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from assay.auditing.image_edits import STEPS, fractions, on_grid, shifted, shrunk, stretched, with_patches
from assay.auditing.jumps import Edit, Found, JumpSearch, TracedImages
from assay.auditing.trace_comparison import (
    MAX_CHANGE,
    answers_differ,
    constant_switch,
    largest_change,
    nan_differs,
)
from assay.core.dataset import Split
from assay.core.errors import first_line
from assay.core.model import Artifact, Modality
from assay.core.result import NOT_ASKED, DeploymentCheck, DeploymentDifference, DeploymentWay
from assay.detectors.budget import Budget
from assay.formats.onnx.runtime import OnnxRuntimeModule
from assay.graphs.execution_trace import ExecutionTrace, Tracer
from assay.nn.module_state import changed_names, state_of

MIN_INPUTS = 6  # fewer inputs show no difference between samples
ROWS, LARGE_ROWS = 8, 6  # inputs of a traced batch: half clean, half with a patch; fewer of large images
LARGE_IMAGE = 3 * 64 * 64  # values; numbers of inputs must not depend on the speed of the machine
TOO_SLOW_SECONDS = 5.0  # for one input; the images between steps and in a smaller range are left out
ANSWERS, LARGE_ANSWERS = 64, 8  # inputs asked one by one; fewer of large images
MAX_COPIED = 2**26  # numbers of a model that is also asked as a copy

# Fraction of other classes without the optimizations of ONNX Runtime: int8 kernels round differently. A guess.
MAX_OTHER_CLASSES = 0.1
# Fraction of equal answers for images in [0, 1] and 0 to 255, from which a model seems made for both. A guess.
SAME_CLASSES = 0.75

BATCHES = "one by one and in batches"
GRID = "on 8-bit steps and between them"
RANGE = "in the full and in a smaller range of values"
CALLS = "repeatedly"
RUNTIME = "with gradients and as a copy"
OPTIMIZED = "with and without optimizations of ONNX Runtime"

_Pair = tuple[ExecutionTrace, int, ExecutionTrace, int]  # a row of one call, and of another


def check_deployment(artifact: Artifact, clean: Split, *, seed: int, budget: Budget | None = None) -> DeploymentCheck:
    """Ask a model the same inputs in several ways.

    Args:
        artifact: The model, in evaluation mode.
        clean: Clean samples.
        seed: Seed of the patches.
        budget: Time that is left; None for no limit. No way begins after its end.

    Returns:
        The ways, and all differences. A failed check is a difference too.
    """
    start = time.perf_counter()
    if len(clean) < MIN_INPUTS:
        reason = f"there are {len(clean)} clean samples, and {MIN_INPUTS} are needed"
        return DeploymentCheck((DeploymentWay(BATCHES, 0, False, reason),), (), time.perf_counter() - start)
    ways: list[DeploymentWay] = []
    differences: list[DeploymentDifference] = []
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        if math.prod(artifact.inputs.shape) <= LARGE_IMAGE:
            torch.set_num_threads(1)  # for few small inputs threads cost more than they save
        asked = _Asked(artifact, clean, seed)
        for name, inputs, test in asked.tests():
            if budget is not None and budget.left() <= 0:
                asked.skipped[name] = "the budget ended: give it more"
                continue
            try:
                found = [DeploymentDifference(name, *part) for part in test()]
            except Exception as error:  # an arbitrary model can fail in any way
                found = [_failed(name, error)]
            differences += found
            ways.append(DeploymentWay(name, inputs, not found))
        for name, reason in asked.skipped.items():
            ways.append(DeploymentWay(name, 0, False, reason))
            differences.append(DeploymentDifference(name, NOT_ASKED, f"the model was not asked {name}: {reason}"))
        if asked.tracer.is_batch_fixed:  # no doubt: the deployed model has the same batch
            ways.append(DeploymentWay(BATCHES, 0, False, "its graph has a fixed batch size"))
    except Exception as error:  # as above
        differences.append(_failed(BATCHES, error))
        ways.append(DeploymentWay(BATCHES, 0, False))
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(random_state)
    return DeploymentCheck(tuple(ways), tuple(differences), time.perf_counter() - start)


def _failed(way: str, error: Exception) -> DeploymentDifference:
    return DeploymentDifference(way, "failed", f"the model cannot be asked {way}: {first_line(error)}")


class _Asked:
    """One model with its inputs and traces."""

    def __init__(self, artifact: Artifact, clean: Split, seed: int) -> None:
        self.module, self.seed = artifact.module, seed
        self.changed_first = artifact.changed_by_first_call
        self.output = "class" if artifact.num_classes is not None else "embedding"
        self.is_image = artifact.modality is Modality.IMAGE
        self.skipped: dict[str, str] = {}  # reason by way
        spread = torch.linspace(0, len(clean) - 1, min(len(clean), 2 * ANSWERS)).long()  # data may be sorted by class
        clean_x = clean.x[spread]
        clean_x = on_grid(clean_x) if self.is_image else _of_one_length(clean_x, artifact)
        self.tracer = Tracer(self.module, clean_x)
        began = time.perf_counter()
        self.answer(clean_x[:1])
        seconds = time.perf_counter() - began
        self.is_too_slow = seconds > TOO_SLOW_SECONDS
        is_large = self.is_image and math.prod(artifact.inputs.shape) > LARGE_IMAGE
        half = (LARGE_ROWS if is_large else ROWS) // 2
        patched = with_patches(clean_x[:half], seed) if self.is_image else clean_x[half : 2 * half]
        self.rows = torch.cat([clean_x[:half], patched])
        self.other_samples = clean_x[half : 2 * half]
        self.half = half
        self.x = torch.cat([self.rows, clean_x[half:]])[: LARGE_ANSWERS if is_large else ANSWERS]
        self.first_answers = self.answer(self.rows)
        self.base = self.tracer.run(self.rows)
        self.alone = self.tracer.run_alone(self.rows)

    def answer(self, x: Tensor) -> Tensor:
        """Return the outputs (N, K) for one batch."""
        with torch.no_grad():
            return self.module(x).detach().float()

    def tests(self) -> Iterator[tuple[str, int, Callable[[], Iterable[Found]]]]:
        """Yield each way with its number of inputs and its test."""
        if not self.tracer.is_batch_fixed:
            yield BATCHES, len(self.x), self.ask_batches
        if self.is_image and not self.is_too_slow:
            yield GRID, len(self.rows), self.ask_between_steps
            yield RANGE, len(self.rows), self.ask_smaller_range
        elif self.is_image:
            self.skipped |= dict.fromkeys((GRID, RANGE), f"the model takes over {TOO_SLOW_SECONDS:g} s for one image")
        yield CALLS, len(self.rows), self.ask_again
        if any(isinstance(part, OnnxRuntimeModule) for part in self.module.modules()):
            yield OPTIMIZED, len(self.x), self.ask_without_optimizations
        else:
            yield RUNTIME, 2, self.ask_with_gradients

    def ask_batches(self) -> Iterator[Found]:
        """Compare one by one with batches, and batches with the same first input."""
        single = torch.cat([self.answer(part) for part in self.x.split(1)])
        yield from self._compare(single, self.answer(self.x), "one by one", "in one batch")
        if len(self.x) > ROWS // 2:
            twos, eights = (torch.cat([self.answer(part) for part in self.x.split(size)]) for size in (2, 8))
            yield from self._compare(twos, eights, "in batches of 2", "in batches of 8")
        rows, patched = self.rows, self.half
        together = {
            "clean": (self.tracer.run(rows[[0, 1]]), self.tracer.run(rows[[0, patched]])),
            "patched": (self.tracer.run(rows[[patched, patched + 1]]), self.tracer.run(rows[[patched, 1]])),
        }
        last, alone = self.tracer.run(rows[[1, 0]]), self.tracer.run(rows[patched : patched + 1])
        after = self.tracer.run(rows[[patched, 0]])  # a cumulative sum reaches the later inputs only
        if any(left.steps != right.steps for left, right in together.values()):
            sentence = "the model runs other operators for other inputs, so that its inner values cannot be compared"
            yield Found("not compared", sentence, {}, len(rows))
            return
        if {trace.steps for trace in (self.alone, alone)} != {self.base.steps, last.steps}:
            numbers = {"operators alone": len(self.alone.steps), "operators in a batch": len(self.base.steps)}
            sentence = "the model runs other operators for a single input than for a batch"
            yield Found("inside", sentence, numbers, len(rows))
        pairs = [
            (self.alone, 0, self.base, 0),
            (self.alone, 0, last, 1),
            (alone, 0, self.base, patched),
            (alone, 0, together["patched"][0], 0),
        ]
        sentence = "an inner value of one input is another one alone than in a batch"
        yield from self._inside(pairs, sentence)
        sentence = "an inner value of one input depends on the other inputs of its batch"
        mixed = [(left, 0, right, 0) for left, right in together.values()]
        yield from self._inside([*mixed, (last, 1, after, 1)] if last.steps == after.steps else mixed, sentence)

    def ask_between_steps(self) -> Iterator[Found]:
        """Compare images on whole 8-bit steps with images between them."""
        small: dict[str, Edit] = {
            "a quarter of a step": lambda x: shifted(x, 0.25),
            "half a step": lambda x: shifted(x, 0.5),
            "random fractions of a step": lambda x: shifted(x, fractions(x, self.seed)),
        }
        yield from self._jumps(small, lambda x: shifted(x, 6.0), "between 8-bit steps")

    def ask_smaller_range(self) -> Iterator[Found]:
        """Compare images in the full range with images whose values stay away from its ends, and with 0 to 255.

        The images are stretched to the full range first, since a gate may open only outside of the samples' range.
        """
        small: dict[str, Edit] = {"2 % at both ends": lambda x: shrunk(x, 0.02)}
        found = self._jumps(small, lambda x: shrunk(x, 0.2), "in a smaller range of values", prepare=stretched)
        yield from found or self._switch_to_bytes()

    def _switch_to_bytes(self) -> Iterator[Found]:
        """Yield a switch of a model that answers alike for images in [0, 1] and in 0 to 255."""
        expected = self.answer(self.x).argmax(1)
        same = (self.answer(STEPS * self.x).argmax(1) == expected).float().mean()
        if float(same) < SAME_CLASSES or len(expected.unique()) < 2:
            return
        change = constant_switch(self.base, self.tracer.run(STEPS * self.rows))
        if change.size > MAX_CHANGE:
            sentence = "the model takes images in [0, 1] and in 0 to 255, and an inner value differs for all images"
            numbers: dict[str, float | int | str] = {"value": change.name, "relative change": change.size}
            yield Found("inside", f"{sentence} ({change.name})", numbers, len(self.rows))

    def ask_again(self) -> Iterator[Found]:
        """Compare the first call with later ones, and look for random numbers and changes of state."""
        states = _random_states()
        before = state_of(self.module)
        again = self.tracer.run(self.rows)
        drawn = [*again.random, *(name for name, state in _random_states().items() if state != states[name])]
        if drawn:
            sentence = f"the model draws random numbers in evaluation mode ({', '.join(drawn[:3])})"
            yield Found("random", sentence, {"operators": ", ".join(drawn)}, len(self.rows))
        if changed := changed_names(before, state_of(self.module)):
            sentence = f"a call changes the state of the model ({', '.join(changed[:3])})"
            yield Found("state", sentence, {"changed": ", ".join(changed[:20])}, len(self.rows))
        if self.changed_first:
            sentence = f"the first call changes the state of the model ({', '.join(self.changed_first[:3])})"
            yield Found("state", sentence, {"changed first": ", ".join(self.changed_first[:20])}, len(self.rows))
        if training := [name or "the model" for name, module in self.module.named_modules() if module.training]:
            sentence = f"parts of the model are in training mode after a call ({', '.join(training[:3])})"
            yield Found("state", sentence, {"parts": ", ".join(training[:20])}, len(self.rows))
        if again.steps != self.base.steps:
            yield Found("inside", "the model runs other operators in a later call with the same inputs")
            return
        if not drawn:
            sentence = "an inner value is another one in a later call with the same inputs"
            yield from self._inside([(self.base, row, again, row) for row in (0, self.half)], sentence)
        # A traced ONNX file runs without optimizations, and int8 kernels then round differently.
        traced = [] if self.tracer.graphs else [self.base.output.float()]
        for later in (*traced, self.answer(self.rows)):
            found = list(self._compare(self.first_answers, later, "in the first call", "in a later one"))
            yield from found
            if found:
                return

    def ask_with_gradients(self) -> Iterator[Found]:
        """Compare a call without gradients with a call with gradients, in inference mode, and of a copy."""
        two = self.rows[:2]
        expected = self.answer(two)
        with torch.enable_grad():
            answers = self.module(two.clone().requires_grad_() if self.is_image else two).detach().float()
        yield from self._compare(expected, answers, "without gradients", "with gradients")
        plain, traced = self.tracer.run(two), self.tracer.run(two, gradients=True)
        if plain.steps == traced.steps:  # some layers of torch have another implementation with gradients
            sentence = "an inner value is another one with gradients than without"
            yield from self._inside([(plain, row, traced, row) for row in (0, 1)], sentence)
        with torch.inference_mode():
            answers = self.module(two.clone()).float().clone()
        yield from self._compare(expected, answers, "without gradients", "in inference mode")
        if sum(parameter.numel() for parameter in self.module.parameters()) <= MAX_COPIED:
            with suppress(Exception), torch.no_grad():  # some modules cannot be copied
                answers = copy.deepcopy(self.module)(two).float()
            yield from self._compare(expected, answers, "as given", "as a copy")

    def ask_without_optimizations(self) -> Iterator[Found]:
        """Compare ONNX Runtime with and without optimizations of the graph."""
        expected = self.answer(self.x)
        with _without_optimizations(self.module):
            answers = self.answer(self.x)
        classes = int((expected.argmax(1) != answers.argmax(1)).sum())
        if classes > max(1.0, MAX_OTHER_CLASSES * len(self.x)) or bool(nan_differs(expected, answers).any()):
            sentence = (
                "without the optimizations of ONNX Runtime the model outputs other answers for "
                f"{classes} of {len(self.x)} images"
            )
            yield Found("answers", sentence, {"other classes": classes}, len(self.x))

    def _compare(self, left: Tensor, right: Tensor, one: str, other: str) -> Iterator[Found]:
        """Yield the difference between two outputs for the same inputs, if there is any.

        Args:
            left: (N, K) outputs.
            right: (N, K) outputs.
            one: Way of asking for ``left``, for people.
            other: Way of asking for ``right``.
        """
        differ = answers_differ(left, right)
        if not differ.any():
            return
        classes = int((left.argmax(1) != right.argmax(1)).sum())
        count, outputs = int(differ.sum()), "other numbers"
        if bool(nan_differs(left, right).any()):
            count, outputs = int(nan_differs(left, right).sum()), "NaN or infinity in one way only"
        elif classes and self.output == "class":
            count, outputs = classes, "another class"
        sentence = f"the model outputs {outputs} for {count} of {len(left)} inputs if asked {one} and {other}"
        yield Found("answers", sentence, {"other classes": classes, "other outputs": int(differ.sum())}, len(left))

    @cached_property
    def sorted_values(self) -> frozenset[str]:
        """Names of the values whose rows follow no sample; only a suspicious model is asked for them."""
        return self.tracer.find_sorted_values(self.x)

    def _inside(self, pairs: Sequence[_Pair], sentence: str) -> Iterator[Found]:
        """Yield a change of an intermediate value, if it is larger than ``MAX_CHANGE``.

        Args:
            pairs: Traces and rows to compare.
            sentence: The change, for people.
        """
        change = max(largest_change(*pair) for pair in pairs)
        if change.size > MAX_CHANGE:
            change = max(largest_change(*pair, self.sorted_values) for pair in pairs)
        if change.size > MAX_CHANGE:
            numbers: dict[str, float | int | str] = {"value": change.name, "relative change": change.size}
            yield Found("inside", f"{sentence} ({change.name})", numbers, len(self.rows))

    def _jumps(self, small: Mapping[str, Edit], large: Edit, where: str, prepare: Edit | None = None) -> list[Found]:
        """Return the first jump of an answer or of an inner value, if there is any.

        Args:
            small: Small changes by name. The first is tried on single images too.
            large: The larger change of the same kind.
            where: Place of the changed images, for people.
            prepare: Edit of the images before any change; None: none, and their traces are known.
        """
        known = (self.base, self.alone) if prepare is None else None
        edit = prepare or (lambda x: x)
        images = TracedImages(self.tracer, edit(self.rows), large, known)

        def others() -> TracedImages:
            rows = torch.cat([self.other_samples, with_patches(self.other_samples, self.seed + 1)])
            return TracedImages(self.tracer, edit(rows), large)

        enough = len(self.other_samples) == self.half
        return JumpSearch(images, others if enough else None, where, lambda: self.sorted_values).find(small)


def _of_one_length(x: Tensor, artifact: Artifact) -> Tensor:
    """Return the texts with padding, or those without if there are more: a model may leave out a mask without padding.

    Args:
        x: Token numbers (N, L).
        artifact: The model, for its padding.
    """
    pad = getattr(artifact.inputs, "pad", None)
    has_padding = torch.zeros(len(x), dtype=torch.bool) if pad is None else (x == pad).any(1)
    return max(x[has_padding], x[~has_padding], key=len)


def _random_states() -> dict[str, object]:
    return {
        "random numbers of Python": random.getstate(),
        "random numbers of NumPy": str(np.random.get_state()),
        "random numbers of torch": bytes(torch.get_rng_state().numpy()),
    }


@contextmanager
def _without_optimizations(model: nn.Module) -> Iterator[None]:
    """Run the ONNX files inside a model without optimizations while the context is open."""
    parts = [part for part in model.modules() if isinstance(part, OnnxRuntimeModule)]
    sessions = [part.session for part in parts]
    for part in parts:
        part.session = part.with_optimization(False).session
    try:
        yield
    finally:
        for part, session in zip(parts, sessions, strict=True):
            part.session = session
