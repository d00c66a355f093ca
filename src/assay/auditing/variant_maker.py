"""Variants of the model under audit: each is made once, when its first test is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

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
        result, artifact = self._make(name)
        if artifact is None or result.outcome is not VariantOutcome.TESTED:
            return MadeVariant(result, artifact)
        compared = artifact if name == FULL else replace(artifact, reference=self.inputs.artifact)
        clean = self.inputs.samples.split
        start = time.perf_counter()
        tested = in_margin_units(compared, clean)
        seconds = time.perf_counter() - start
        passes = 0 if tested is compared else min(MARGIN_SAMPLES, len(clean))
        return MadeVariant(result, artifact, tested, seconds / passes if passes else 0.0)

    def _make(self, name: str) -> tuple[VariantResult, Artifact | None]:
        spec, full = variants.variant_of(name).description, self.inputs.predictions

        def without(outcome: VariantOutcome, reason: str) -> tuple[VariantResult, None]:
            return VariantResult(name, spec, None, outcome=outcome, reason=reason), None

        if name == FULL:
            return self._compared(name, spec, self.inputs.artifact)
        if full is None:
            return without(VariantOutcome.UNAVAILABLE, "it needs clean samples, and there are none")
        if self.budget.left() <= 0:
            return without(VariantOutcome.OUT_OF_TIME, "the budget ended before it was made")
        if (expected := self.expected_seconds(name)) > self.budget.left():
            return without(VariantOutcome.OUT_OF_TIME, too_long(expected, self.budget))
        try:
            variant = make_variant(name, self.inputs.artifact, self.inputs.samples.split, seed=self.seed)
            return self._compared(name, spec, variant)
        except NoSuchVariant as error:
            result, _ = without(VariantOutcome.UNAVAILABLE, str(error))
            return replace(result, applies=False), None
        except AssayError as error:
            return without(VariantOutcome.UNAVAILABLE, str(error))
        except Exception as error:  # an arbitrary model can fail in any way; the other variants are still audited
            return without(VariantOutcome.UNAVAILABLE, f"it could not be made: {first_line(error)}")

    def _compared(self, name: str, spec: str, variant: Artifact) -> tuple[VariantResult, Artifact]:
        """Return a variant with its agreement with the full model, and its accuracy."""
        clean, full = self.inputs.samples.split, self.inputs.predictions
        if full is None:
            return VariantResult(name, spec, None), variant
        predictions = full if name == FULL else forward_finite(variant.module, clean.x).argmax(1)
        agreement = float((predictions == full).float().mean())
        # The labels of an encoder are its own clusters, so their accuracy has no meaning.
        labels = None if self.inputs.is_encoder else clean.y
        accuracy = None if labels is None else float((predictions == labels).float().mean())
        if 1 - agreement <= MAX_DISAGREEMENT:
            return VariantResult(name, spec, accuracy, agreement), variant
        reason = f"it agrees with the full model on only {agreement:.0%} of the samples: compression broke it"
        return VariantResult(name, spec, accuracy, agreement, VariantOutcome.BROKEN, reason), variant


def too_long(expected: float, budget: Budget) -> str:
    """Return the reason for work that is not started, since it would exceed the budget.

    Args:
        expected: Its expected seconds.
        budget: Time that is left.
    """
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
