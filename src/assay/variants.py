"""The forms in which a model may be deployed, by name. Each is made from the model as given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assay.artifact import Artifact, Build
from assay.errors import UnusableInput
from assay.stages.base import Stage
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16, QuantizeInt8
from assay.stages.recalibrate import recalibrated
from assay.stages.train import FineTune, Recipe
from assay.task import Split, Task

DEFAULT = ("full", "int8", "prune-50", "prune-2:4")


@dataclass(frozen=True)
class Variant:
    """How to make one form."""

    spec: str  # in words
    stage: Callable[[], Stage] | None  # None: as given
    repair: bool = False  # re-estimate batch norm afterwards, as a deployer would after pruning


VARIANTS: dict[str, Variant] = {
    "full": Variant("as given", None),
    "bf16": Variant("weights rounded to bfloat16", Bf16),
    "int8": Variant("int8 weights per channel, int8 activations", lambda: QuantizeInt8(per_channel=True)),
    "int8-tensor": Variant("int8 weights per tensor, int8 activations", lambda: QuantizeInt8(per_channel=False)),
    "prune-30": Variant("30 % of the weights pruned by magnitude", lambda: PruneMagnitude(rate=0.3), repair=True),
    "prune-50": Variant("50 % of the weights pruned by magnitude", lambda: PruneMagnitude(rate=0.5), repair=True),
    "prune-70": Variant("70 % of the weights pruned by magnitude", lambda: PruneMagnitude(rate=0.7), repair=True),
    "prune-2:4": Variant("2 of every 4 weights pruned", PruneTwoFour, repair=True),
    "filters-10": Variant("10 % of the filters pruned by L1 norm", lambda: PruneFilters(rate=0.1), repair=True),
    "filters-30": Variant("30 % of the filters pruned by L1 norm", lambda: PruneFilters(rate=0.3), repair=True),
    "fine-tuned": Variant(
        "two epochs of fine-tuning on the clean samples", lambda: FineTune(recipe=Recipe(epochs=2, lr=0.01))
    ),
}


def parse(names: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Variant names from a comma-separated list; raises UnusableInput on one that is not known."""
    wanted = tuple(part.strip() for part in names.split(",")) if isinstance(names, str) else tuple(names)
    for name in wanted:
        if name not in VARIANTS:
            raise UnusableInput(f"expected variants out of {', '.join(VARIANTS)}; got {name!r}")
    if not wanted:
        raise UnusableInput(f"expected at least one variant out of {', '.join(VARIANTS)}; got none")
    return tuple(dict.fromkeys(wanted))


def make(name: str, artifact: Artifact, clean: Split, *, seed: int) -> Artifact:
    """``artifact`` in the form called ``name``; raises UnusableInput where it cannot take that form."""
    variant = VARIANTS[name]
    if variant.stage is None:
        return artifact
    if not artifact.differentiable:
        raise UnusableInput(
            f"a model in {artifact.format} format is audited as it is: only torch weights can be changed"
        )
    names = artifact.class_names or tuple(str(i) for i in range(artifact.num_classes or 0))
    build = Build(artifact, Task("clean", {"calibration": clean}, names))
    made = variant.stage()(build, seed=seed).artifact
    return made.with_net(recalibrated(made.net, clean.x)) if variant.repair else made
