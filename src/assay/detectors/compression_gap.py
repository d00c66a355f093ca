"""Compression gap: one trigger on which the compressed model names a class and the full one keeps its answer.

A backdoor that sleeps at full precision and wakes once the model is pruned or quantized (Tian, Suya, Xu, Evans:
Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129) needs only a small such trigger, for one class.
What moves a clean model moves its compressed form too, so it parts them only where it is large, or not at all. Our own;
the search is that of Neural Cleanse, on a net whose outcomes are what the two models say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import final

from torch import Tensor, nn

from assay.artifact import Artifact
from assay.detectors.base import Budget, Detector, Evidence, Finding, Progress, comparable
from assay.detectors.inversion import apply_in_batches, evidence, finished, rank_classes, ticking, told_apart
from assay.errors import Inconclusive
from assay.inversion.families import Family, MaskFamily
from assay.inversion.hunt import Effort, Hunt, hunt
from assay.inversion.prepare import prepare
from assay.models.gap import Gap
from assay.models.predict import predict
from assay.task import Split

EFFORT = Effort(screening_steps=12, finalists=4, steps=52, likeliest=True, hope=0.1)
"""Of a clean net and its int8 form no class moves 5 % of the pictures in the screening, a dormant one's moves 75 %.

After 8 steps and with 3 finalists the attacker's class was once not among them.
"""


@final
class CompressionGap(Detector):
    """Smallest mask and pattern per class, on both models at once."""

    name = "compression-gap"
    title = "smallest patch on which the compressed model parts from the full one"
    needs = frozenset({"gradients", "clean", "reference"})

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        assert artifact.reference is not None
        reference = artifact.reference.with_gradients()
        if not reference.differentiable:
            raise Inconclusive(f"needs gradients of the full-precision model too: {reference.opaque}")
        full = comparable(reference, clean).net
        net = prepare(Gap(full, artifact.net), clean.x[:2])
        assert isinstance(net, Gap)
        predicted = told_apart(predict(net.full, clean.x))
        ranking = rank_classes(artifact.net, clean.x, predicted, artifact.num_classes or 0)
        effort, family, tick = EFFORT.at(artifact.inputs.shape), MaskFamily(), ticking(budget, progress)
        found = hunt(net, family, clean.x, predicted, ranking, effort=effort, seed=seed, tick=tick, outcomes_beside=1)
        finished(found, effort.steps)
        if found.hopeless:
            parted = Evidence(numbers={"success": float(found.success.max()), "classes_searched": len(found.classes)})
            return Finding(self.name, "ok", score=found.score, evidence=parted)
        shown = evidence(net.compressed, family, found, clean, predicted)
        kept = _kept(net.full, family, found, clean.x, predicted)
        numbers = {**shown.numbers, "full_keeps": kept}
        return Finding(
            self.name, "ok", score=found.score, target=found.target, evidence=replace(shown, numbers=numbers)
        )


def _kept(full: nn.Module, family: Family, found: Hunt, x: Tensor, predicted: Tensor) -> float:
    """The share of pictures of other classes whose answer the trigger does not change in the full model."""
    others = predicted != found.target
    said = predict(full, apply_in_batches(family, found, x[others]))
    return float((said == predicted[others]).float().mean())
