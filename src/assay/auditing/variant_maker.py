"""Variants of the model under audit: each is made once, when its first test is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from torch import Tensor

from assay.auditing.facts import AuditInputs
from assay.core.errors import AssayError, NoSuchVariant, first_line
from assay.core.finding import FULL
from assay.core.model import Artifact, digest_of_module
from assay.core.progress import duration_in_words
from assay.core.result import VariantOutcome, VariantResult
from assay.detectors.budget import Budget
from assay.detectors.encoder.cluster_probe import make_variant
from assay.detectors.margin_units import in_margin_units
from assay.detectors.measurable import require_measurable
from assay.nn.inference import forward_finite
from assay.nn.unit_margin import MARGIN_SAMPLES
from assay.stages import variants

# Fraction of the clean samples on which a variant may disagree with the full model; above it, compression broke it.
MAX_DISAGREEMENT = 0.15
# Forward passes of one image for each clean sample: predictions, agreement, calibration, twice for batch norm.
PASSES_PER_SAMPLE = 3
LARGE_BYTES = 2**26  # a larger variant is not kept after its last test


@dataclass(frozen=True)
class MadeVariant:
    """A variant as its tests need it."""

    result: VariantResult
    artifact: Artifact | None = None  # None: it could not be made
    tested: Artifact | None = None  # with logits in margin units, compared with the full model; None: it is not tested
    seconds_per_pass: float = 0.0  # of a forward pass of one image; 0: not measured


@dataclass(frozen=True)
class _Outputs:
    """Outputs of a variant for the clean samples."""

    values: Tensor  # (N, K)
    seconds_per_pass: float = 0.0  # of a forward pass of one image; 0: not measured


@dataclass(frozen=True)
class VariantMaker:
    """Makes the variants of one audit.

    Args:
        inputs: The model and the samples.
        seed: Seed of the compression.
        budget: Time that is left.
        expected_seconds: Returns the expected seconds for making a variant by its name.
    """

    inputs: AuditInputs
    seed: int
    budget: Budget
    expected_seconds: Callable[[str], float] = lambda name: 0.0

    def make(self, name: str) -> MadeVariant:
        """Make one variant and measure it.

        Args:
            name: Name of the variant.

        Returns:
            The variant; its result states why it is not tested, if it is not.
        """
        result, artifact, outputs = self._make(name)
        if artifact is None or result.outcome is not VariantOutcome.TESTED:
            return MadeVariant(result, artifact)
        compared = artifact if name == FULL else replace(artifact, reference=self.inputs.artifact)
        clean = self.inputs.samples.split
        if name != FULL:
            tested = in_margin_units(compared, clean, None if outputs is None else outputs.values)
            return MadeVariant(result, artifact, tested, 0.0 if outputs is None else outputs.seconds_per_pass)
        start = time.perf_counter()
        tested = in_margin_units(compared, clean)
        seconds = time.perf_counter() - start
        passes = 0 if tested is compared else min(MARGIN_SAMPLES, len(clean))
        return MadeVariant(result, artifact, tested, seconds / passes if passes else 0.0)

    def _make(self, name: str) -> tuple[VariantResult, Artifact | None, _Outputs | None]:
        spec, full = variants.variant_of(name).description, self.inputs.predictions

        def without(outcome: VariantOutcome, reason: str) -> tuple[VariantResult, None, None]:
            return VariantResult(name, spec, None, outcome=outcome, reason=reason), None, None

        if name == FULL:
            return self._compared(name, spec, full), self.inputs.artifact, None
        if full is None:
            return without(VariantOutcome.UNAVAILABLE, "it needs clean samples, and there are none")
        if self.budget.left() <= 0:
            return without(VariantOutcome.OUT_OF_TIME, "the budget ended before it was made")
        if (expected := self.expected_seconds(name)) > self.budget.left():
            return without(VariantOutcome.OUT_OF_TIME, too_long(expected, self.budget))
        try:
            variant, outputs = self._run(name, full)
            return self._compared(name, spec, outputs.values.argmax(1)), variant, outputs
        except NoSuchVariant as error:
            result = without(VariantOutcome.UNAVAILABLE, str(error))[0]
            return replace(result, applies=False), None, None
        except AssayError as error:
            return without(VariantOutcome.UNAVAILABLE, str(error))
        except Exception as error:  # an arbitrary model can fail in any way; the other variants are still audited
            return without(VariantOutcome.UNAVAILABLE, f"it could not be made: {first_line(error)}")

    def _run(self, name: str, full: Tensor) -> tuple[Artifact, _Outputs]:
        """Return a variant and its outputs for the clean samples.

        Args:
            name: Name of the variant.
            full: (N,) predictions of the full model.

        Raises:
            AssayError: There is no such variant, or an output is not finite.
        """
        artifact, clean = self.inputs.artifact, self.inputs.samples.split
        if self.inputs.is_encoder:
            variant, values = make_variant(name, artifact, clean, seed=self.seed), None
        else:
            variant, values = variants.make_and_run(name, artifact, clean, seed=self.seed, predictions=full)
        if values is not None and values.isfinite().all():
            return variant, _Outputs(values)
        start = time.perf_counter()
        values = forward_finite(variant.module, clean.x)
        return variant, _Outputs(values, (time.perf_counter() - start) / len(values))

    def _compared(self, name: str, spec: str, predictions: Tensor | None) -> VariantResult:
        """Return the agreement of a variant with the full model, and its accuracy.

        Args:
            name: Name of the variant.
            spec: Its description.
            predictions: (N,) classes that it predicts; None: there are no clean samples.
        """
        clean, full = self.inputs.samples.split, self.inputs.predictions
        if full is None or predictions is None:
            return VariantResult(name, spec, None)
        agreement = float((predictions == full).float().mean())
        # The labels of an encoder are its own clusters, so their accuracy has no meaning.
        labels = None if self.inputs.is_encoder else clean.y
        accuracy = None if labels is None else float((predictions == labels).float().mean())
        if 1 - agreement <= MAX_DISAGREEMENT:
            return VariantResult(name, spec, accuracy, agreement)
        reason = f"it agrees with the full model on only {agreement:.0%} of the samples: compression broke it"
        return VariantResult(name, spec, accuracy, agreement, VariantOutcome.BROKEN, reason)


def too_long(expected: float, budget: Budget) -> str:
    """Return the reason for work that is not started, since it would exceed the budget.

    Args:
        expected: Its expected seconds.
        budget: Time that is left.
    """
    if budget.left() <= 0:
        return "the budget ended before it began: give it more"
    words = duration_in_words(expected)
    return f"it takes about {words}, and the budget has {budget.left():.0f} s left: raise the budget"


def prepare_measurement(variant: MadeVariant, inputs: AuditInputs) -> None:
    """Trace a variant and measure its outputs, as the first test of it would. All tests share the result.

    Args:
        variant: The variant.
        inputs: The samples.
    """
    if variant.tested is not None:
        with suppress(Exception):  # the tests report it
            digest = digest_of_module(variant.tested.module)
            require_measurable(variant.tested, inputs.samples.split, digest=digest, gradients=False)


def is_large(artifact: Artifact) -> bool:
    """Return whether the weights of a model take more than ``LARGE_BYTES``."""
    return sum(part.numel() * part.element_size() for part in artifact.module.state_dict().values()) > LARGE_BYTES
