"""Base class of all detectors: the method itself and the harness around it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar, final

import torch

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, Unfinished, Unmeasurable, first_line
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact, Modality, digest_of_module
from assay.core.progress import Progress
from assay.detectors.budget import Budget
from assay.detectors.cost import SCAN, SEARCH, Cost
from assay.detectors.margin_units import in_margin_units
from assay.detectors.measurable import require_measurable
from assay.detectors.requirement import Requirement
from assay.nn.encoders import find_cluster_probe
from assay.nn.modes import eval_mode
from assay.nn.precision import fast_dtype

OWN_CALLS = 32  # calls of a model; it may change its numbers in some of them only


class Detector(ABC):
    """A test for backdoors: subclasses implement ``run``, and ``__call__`` is the harness around it.

    A detector never gets a Secret and must leave the weights unchanged.
    """

    name: ClassVar[str]  # the name in the literature, kebab-case; key of its null distribution
    title: ClassVar[str]  # one line for users
    needs: ClassVar[Requirement]
    modality: ClassVar[Modality | None] = Modality.IMAGE  # inputs that it can add a trigger to; None: it adds none
    needs_null: ClassVar[bool] = True  # False: a hit is a proof, and no reference model enters its result
    on_variants: ClassVar[bool] = True  # False: an audit runs it on the model as given only
    required_for_clean: ClassVar[bool] = False  # True: without its score on the model as given, no verdict "clean"
    reads_computation: ClassVar[bool] = False  # True: it reads the graph and would report a signature check in it
    # For 10 classes and 32 pixels, as tests/detectors/test_cost.py counts; None: the cost of a usual search or scan.
    cost: ClassVar[Cost | None] = None
    compares_variants: ClassVar[bool] = False  # True: its trigger works on a variant and not on the original model

    @property
    def expected_cost(self) -> Cost:
        """Expected cost on a model with 10 classes and 32 pixels."""
        return self.cost or (SEARCH if Requirement.GRADIENTS in self.needs else SCAN)

    @abstractmethod
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Score a model.

        Args:
            artifact: The model, in evaluation mode, with logits in margin units, which meets ``needs``.
            clean: Clean samples; possibly none, without CLEAN_SAMPLES in ``needs``.
            seed: Seed of all random numbers. The harness has seeded torch with it already.
            budget: Time that is left.
            progress: Callback for the fraction done, in [0, 1].

        Returns:
            A finding with outcome SCORED, or CHECKED or PROVEN for a detector with ``needs_null = False``.

        Raises:
            Inconclusive: The method does not apply to this model; the message is the reason.
            Unmeasurable: The method applies, but outputs or gradients carry no information.
            Unfinished: The budget ended too early, or the model gave no usable output.
        """

    @final
    def __call__(
        self,
        artifact: Artifact,
        clean: Split,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        progress: Progress = lambda fraction: None,
    ) -> Finding:
        """Run the detector under the harness.

        The harness checks requirements, sets evaluation mode and the seed, measures whether the outputs and gradients
        carry information, converts exceptions to findings, and checks the score.

        Args:
            artifact: The model under audit.
            clean: Clean samples, possibly none.
            seed: Seed of all random numbers.
            budget: Time that is left; None for no limit.
            progress: Callback for the fraction done, in [0, 1].

        Returns:
            A finding of any outcome, with the seconds that it took.

        Raises:
            UnusableInput: ``ASSAY_PRECISION`` has an unknown value.
            RuntimeError: The detector changed the weights of a model.
        """
        start = time.perf_counter()
        fast_dtype()  # the settings are wrong, not the model: below, an error would count against the model
        budget = budget or Budget()
        if Requirement.GRADIENTS in self.needs:
            artifact = artifact.with_gradients()
        missing = self._missing(artifact, clean)
        if missing:
            return Finding(self.name, Outcome.ABSTAINED, reason=missing)
        if budget.left() <= 0:
            return Finding(self.name, Outcome.INCOMPLETE, reason="the budget ended before it began: give it more")
        failed = Outcome.FAILED if self.needs_null else Outcome.CHECK_FAILED
        before = _digests(artifact)
        second = artifact if artifact.reference is None else artifact.reference
        with eval_mode(artifact.module), eval_mode(second.module), torch.random.fork_rng(devices=[]):
            try:
                scaled = in_margin_units(artifact, clean)
                if self.needs & (Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES):
                    gradients = Requirement.GRADIENTS in self.needs
                    require_measurable(scaled, clean, digest=before[0], gradients=gradients)
                torch.manual_seed(seed)
                finding = self.run(scaled, clean, seed=seed, budget=budget, progress=progress)
            except Unfinished as error:
                finding = Finding(self.name, Outcome.INCOMPLETE, reason=str(error))
            except Inconclusive as error:
                unmeasurable = isinstance(error, Unmeasurable)
                finding = Finding(self.name, Outcome.ABSTAINED, reason=str(error), unmeasurable=unmeasurable)
            except Exception as error:  # an arbitrary model can fail in any way; the other detectors still run
                finding = Finding(self.name, failed, reason=f"{type(error).__name__}: {first_line(error)}")
        if _digests(artifact) != before:
            if not _changes_itself(artifact, clean):
                raise RuntimeError(f"detector {self.name} changed the weights of the model under audit")
            if finding.outcome is not Outcome.PROVEN:
                reason = "compares outputs, and the model changes its own numbers when it runs"
                finding = Finding(self.name, Outcome.ABSTAINED, reason=reason, unmeasurable=True)
        if finding.outcome.completed and (finding.score is None or not math.isfinite(finding.score)):
            finding = Finding(self.name, failed, reason=f"expected a finite score, got {finding.score}")
        return replace(finding, seconds=time.perf_counter() - start)

    def _missing(self, artifact: Artifact, clean: Split) -> str:
        """Return the first unmet requirement as words to follow the detector's name; empty if all are met."""
        if self.modality is not None and artifact.modality is not self.modality:
            return f"is for models of {self.modality}s, and this one takes {artifact.modality}s"
        if Requirement.GRADIENTS in self.needs and not artifact.differentiable:
            cause = f": {artifact.no_gradient_reason}" if artifact.no_gradient_reason else ""
            return f"needs gradients, which a model in {artifact.format} format does not give{cause}"
        if Requirement.CLEAN_SAMPLES in self.needs and len(clean) == 0:
            return "needs clean samples, and there are none"
        has_weights = bool(artifact.weights) or any(True for _ in artifact.module.parameters())
        if Requirement.WEIGHTS in self.needs and not has_weights:
            return "needs the weights, and this model shows none"
        if missing := self._missing_second_model(artifact):
            return missing
        if artifact.num_classes is None:
            return "needs class logits, and this model gives embeddings"
        if Requirement.ENCODER in self.needs and find_cluster_probe(artifact.module) is None:
            return "is for encoders, and this model is a classifier"
        return ""

    def _missing_second_model(self, artifact: Artifact) -> str:
        """Return the unmet requirement of a second model: one of the same kind, or a classifier's trusted encoder."""
        reference, is_encoder = artifact.reference, find_cluster_probe(artifact.module) is not None
        if Requirement.ORIGINAL_MODEL in self.needs and (
            reference is None or (reference.num_classes is None) != is_encoder
        ):
            return "needs a second model to compare with: the original of a compressed model, or a trusted encoder"
        if Requirement.TRUSTED_ENCODER in self.needs and (
            reference is None or reference.num_classes is not None or is_encoder
        ):
            return "needs a trusted copy of the encoder that this classifier was made from"
        return ""


def _changes_itself(artifact: Artifact, clean: Split) -> bool:
    """Return whether the weights or buffers of a model change in one of several calls, without any detector."""
    before = _digests(artifact)
    x = clean.x[:1] if len(clean) else artifact.inputs.blank(1)
    with eval_mode(artifact.module), torch.no_grad(), suppress(Exception):  # the model's own code can raise anything
        for _ in range(OWN_CALLS):
            artifact.module(x)
            if _digests(artifact) != before:
                return True
    return _digests(artifact) != before


def _digests(artifact: Artifact) -> tuple[str, ...]:
    """Return the digests of the weights of the model and of its second model."""
    models = (artifact, artifact.reference)
    return tuple(digest_of_module(model.module) for model in models if model is not None)
