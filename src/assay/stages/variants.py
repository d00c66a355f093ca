"""Deployment variants of a model by name. Each variant is made from the model as given."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.errors import NoSuchVariant, UnusableInput
from assay.core.finding import FULL
from assay.core.model import Artifact, digest_of_module
from assay.nn.inference import forward_batched, predict
from assay.stages.base import Stage
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16, QuantizeInt8, QuantizeWeights
from assay.stages.recalibrate import recalibrate_batchnorm
from assay.stages.train import FineTune, Recipe

DEFAULT = (FULL, "int8", "prune-50", "prune-2:4", "int8-tensor", "filters-30")

# Variants that default audits use only in comparison with the original model. Compression damages some clean models
# there; a damaged model has a class bias, and all scans then raise a false alarm together.
COMPARISON_ONLY = frozenset({"prune-2:4", "int8-tensor", "filters-30"})

# Variants that any trained model survives (all 208 reference models do), and that deployers make with their own tools.
# A model that loses one here may keep it there, so without it an audit of it is inconclusive. Pruning breaks many clean
# models: 20 of the 208 at prune-50.
EXPECTED = frozenset({"int8"})

DECISION_BATCH = 64  # samples between two decisions whether recalibration raised the agreement

# "if_better": recalibrate batch norm if that raises the agreement with the original model. An attack that trained with
# frozen batch norm loses by it: a 2:4 sparse backdoored model agrees on 95 % of the images, on 75 % after
# recalibration. Clean models gain.
Recalibrate = Literal["never", "always", "if_better"]


@dataclass(frozen=True)
class Variant:
    """Recipe of one deployment variant."""

    description: str
    stage: Callable[[], Stage] | None  # None: as given
    recalibrate: Recalibrate = "never"  # re-estimate batch norm afterwards, as a deployer would after pruning


def _magnitude_pruned(percent: int) -> Variant:
    description = f"{percent} % of the weights pruned by magnitude"
    # "always": the reference models of the shipped nulls were made this way
    return Variant(description, lambda: PruneMagnitude(rate=percent / 100), recalibrate="always")


def _filter_pruned(percent: int) -> Variant:
    description = f"{percent} % of the filters pruned by L1 norm"
    return Variant(description, lambda: PruneFilters(rate=percent / 100), recalibrate="if_better")


def _integer_weights(bits: int) -> Variant:
    return Variant(f"int{bits} weights per channel", lambda: QuantizeWeights(bits=bits))


# Variants with a free rate or bit width, by the pattern of their names, for instance ``prune-45``.
PARAMETERIZED = {
    r"prune-([1-9][0-9]?)": _magnitude_pruned,
    r"filters-([1-9][0-9]?)": _filter_pruned,
    r"int([2-7])": _integer_weights,
}

VARIANTS: dict[str, Variant] = {
    FULL: Variant("as given", None),
    "bf16": Variant("weights rounded to bfloat16", Bf16),
    "int8": Variant("int8 weights per channel, uint8 activations", lambda: QuantizeInt8(per_channel=True)),
    "int8-tensor": Variant("int8 weights per tensor, uint8 activations", lambda: QuantizeInt8(per_channel=False)),
    "int4": _integer_weights(4),
    **{f"prune-{percent}": _magnitude_pruned(percent) for percent in (30, 50, 70)},
    "prune-2:4": Variant("2 of every 4 weights pruned", PruneTwoFour, recalibrate="if_better"),
    **{f"filters-{percent}": _filter_pruned(percent) for percent in (10, 30)},
    "fine-tuned": Variant(
        "two epochs of fine-tuning on the clean samples", lambda: FineTune(recipe=Recipe(epochs=2, lr=0.01))
    ),
}


def parse(names: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Return variant names without duplicates.

    Args:
        names: Names, or one string with commas between them.

    Raises:
        UnusableInput: No name, or an unknown one.
    """
    listed = tuple(part.strip() for part in names.split(",")) if isinstance(names, str) else tuple(names)
    for name in listed:
        variant_of(name)
    if not listed:
        raise UnusableInput(f"expected at least one variant out of {', '.join(VARIANTS)}, got none")
    return tuple(dict.fromkeys(listed))


def variant_of(name: str) -> Variant:
    """Return the variant called ``name``; raise UnusableInput if there is none."""
    if name in VARIANTS:
        return VARIANTS[name]
    for pattern, make_variant in PARAMETERIZED.items():
        if (match := re.fullmatch(pattern, name)) is not None:
            return make_variant(int(match[1]))
    raise UnusableInput(
        f"expected a variant out of {', '.join(VARIANTS)}, or pruned at another rate, as prune-45, or rounded to 2 to "
        f"7 bits, as int3; got {name!r}"
    )


def make(name: str, artifact: Artifact, clean: Split, *, seed: int) -> Artifact:
    """Return one deployment variant of a model.

    Args:
        name: Name of the variant.
        artifact: The model as given.
        clean: Clean samples, to calibrate with.
        seed: Passed on to the stage.

    Raises:
        NoSuchVariant: The variant equals the model, or the model is quantized already.
        UnusableInput: Unknown name, or no torch weights.
    """
    return make_and_run(name, artifact, clean, seed=seed)[0]


def make_and_run(
    name: str, artifact: Artifact, clean: Split, *, seed: int, predictions: Tensor | None = None
) -> tuple[Artifact, Tensor | None]:
    """Return one deployment variant of a model, and its outputs on the clean samples if they were needed.

    Args:
        name: Name of the variant.
        artifact: The model as given.
        clean: Clean samples, to calibrate with.
        seed: Passed on to the stage.
        predictions: (N,) classes that the model predicts for the clean samples; None: not known yet.

    Returns:
        The variant, and its (N, K) outputs; None: they were not computed.

    Raises:
        NoSuchVariant: The variant equals the model, or the model is quantized already.
        UnusableInput: Unknown name, or no torch weights.
    """
    variant = variant_of(name)
    if variant.stage is None:
        return artifact, None
    artifact = artifact.with_gradients()
    if not artifact.differentiable:
        raise UnusableInput(
            f"expected torch weights to compress, got a model in {artifact.format} format. Fix: audit it only as it is"
        )
    names = artifact.class_names or tuple(str(i) for i in range(artifact.num_classes or 0))
    build = Build(artifact, Task("clean", {"calibration": clean}, names))
    compressed = variant.stage()(build, seed=seed).artifact
    if compressed.digest == digest_of_module(artifact.module):
        raise NoSuchVariant("expected a variant that differs from the model, got the model itself: nothing to compress")
    if variant.recalibrate == "never":
        return compressed, None
    recalibrated = compressed.with_module(recalibrate_batchnorm(compressed.module, clean.x))
    if variant.recalibrate == "always":
        return recalibrated, None
    expected = predict(artifact.module, clean.x) if predictions is None else predictions
    outputs = forward_batched(recalibrated.module, clean.x)
    errors = int((outputs.argmax(1) != expected).sum())
    if _has_errors(compressed, clean.x, expected, errors):
        return recalibrated, outputs
    return compressed, None


def _has_errors(model: Artifact, x: Tensor, expected: Tensor, errors: int) -> bool:
    """Return whether a model predicts another class for at least ``errors`` samples. The run ends with that number.

    Args:
        model: The model.
        x: Samples (N, ...).
        expected: (N,) classes.
        errors: Number of other predictions.
    """
    found = 0
    for part, classes in zip(x.split(DECISION_BATCH), expected.split(DECISION_BATCH), strict=True):
        if found >= errors:
            break
        found += int((predict(model.module, part) != classes).sum())
    return found >= errors
