"""The forms in which a model may be deployed, by name. Each is made from the model as given."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, digest_of_module
from assay.nn.inference import predict
from assay.stages.base import Stage
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16, QuantizeInt8, QuantizeWeights
from assay.stages.recalibrate import recalibrated
from assay.stages.train import FineTune, Recipe

DEFAULT = ("full", "int8", "prune-50", "prune-2:4", "int8-tensor", "filters-30")

BESIDE = frozenset({"prune-2:4", "int8-tensor", "filters-30"})
"""Forms in which an audit by default looks only for what the model as given has not: for the rest, the others do.

A clean net that such a form half broke leans to one class in all scans of it at once.
"""

Repair = Literal["never", "always", "where it helps"]
"""``where it helps``: if the form then agrees more often with the model as given. What was planted with batch norm held
still is broken by it: 2:4 sparse, such a net agrees on 95 % of the pictures, and repaired on 75 %; clean ones gain."""


@dataclass(frozen=True)
class Variant:
    """How to make one form."""

    spec: str  # in words
    stage: Callable[[], Stage] | None  # None: as given
    repair: Repair = "never"  # re-estimate batch norm afterwards, as a deployer would after pruning


def _pruned(percent: int) -> Variant:
    spec = f"{percent} % of the weights pruned by magnitude"
    return Variant(spec, lambda: PruneMagnitude(rate=percent / 100), repair="always")  # as the reference models were


def _without_filters(percent: int) -> Variant:
    spec = f"{percent} % of the filters pruned by L1 norm"
    return Variant(spec, lambda: PruneFilters(rate=percent / 100), repair="where it helps")


def _rounded(bits: int) -> Variant:
    return Variant(f"int{bits} weights per channel", lambda: QuantizeWeights(bits=bits))


AT_EVERY = {
    r"prune-([1-9][0-9]?)": _pruned,
    r"filters-([1-9][0-9]?)": _without_filters,
    r"int([2-7])": _rounded,
}
"""The forms that there are at every rate and width: ``prune-45``."""

VARIANTS: dict[str, Variant] = {
    "full": Variant("as given", None),
    "bf16": Variant("weights rounded to bfloat16", Bf16),
    "int8": Variant("int8 weights per channel, int8 activations", lambda: QuantizeInt8(per_channel=True)),
    "int8-tensor": Variant("int8 weights per tensor, int8 activations", lambda: QuantizeInt8(per_channel=False)),
    "int4": _rounded(4),
    **{f"prune-{percent}": _pruned(percent) for percent in (30, 50, 70)},
    "prune-2:4": Variant("2 of every 4 weights pruned", PruneTwoFour, repair="where it helps"),
    **{f"filters-{percent}": _without_filters(percent) for percent in (10, 30)},
    "fine-tuned": Variant(
        "two epochs of fine-tuning on the clean samples", lambda: FineTune(recipe=Recipe(epochs=2, lr=0.01))
    ),
}


def parse(names: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Variant names from a comma-separated list; raises UnusableInput on one that is not known."""
    wanted = tuple(part.strip() for part in names.split(",")) if isinstance(names, str) else tuple(names)
    for name in wanted:
        variant_of(name)
    if not wanted:
        raise UnusableInput(f"expected at least one variant out of {', '.join(VARIANTS)}; got none")
    return tuple(dict.fromkeys(wanted))


def variant_of(name: str) -> Variant:
    """The form called ``name``; raises UnusableInput where there is none."""
    if name in VARIANTS:
        return VARIANTS[name]
    for pattern, made in AT_EVERY.items():
        if (found := re.fullmatch(pattern, name)) is not None:
            return made(int(found[1]))
    every = ", ".join(VARIANTS)
    raise UnusableInput(
        f"expected variants out of {every}, pruned at any rate, as prune-45, or rounded to 2 to 7 bits, as int3; "
        f"got {name!r}"
    )


def make(name: str, artifact: Artifact, clean: Split, *, seed: int) -> Artifact:
    """``artifact`` in the form called ``name``; raises UnusableInput where it cannot take that form."""
    variant = variant_of(name)
    if variant.stage is None:
        return artifact
    artifact = artifact.with_gradients()
    if not artifact.differentiable:
        raise UnusableInput(
            f"a model in {artifact.format} format is audited as it is: only torch weights can be changed"
        )
    names = artifact.class_names or tuple(str(i) for i in range(artifact.num_classes or 0))
    build = Build(artifact, Task("clean", {"calibration": clean}, names))
    made = variant.stage()(build, seed=seed).artifact
    if made.digest == digest_of_module(artifact.module):
        raise UnusableInput("it is the model as given: there is nothing in it that this form changes")
    if variant.repair == "never":
        return made
    repaired = made.with_module(recalibrated(made.module, clean.x))
    if variant.repair == "always":
        return repaired
    full, plain, mended = (predict(model.module, clean.x) for model in (artifact, made, repaired))
    return repaired if (mended == full).sum() >= (plain == full).sum() else made
