"""Compression gap: one trigger on which the compressed model names a class and the full one does not.

A backdoor that sleeps at full precision and wakes once the model is pruned or quantized (Tian, Suya, Xu, Evans:
Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129) has such a trigger, for one class. What moves a
clean model moves its compressed form too, so it parts them little, or for every class. Our own; the searches are those
of ``local-patch`` and ``neural-cleanse``, on a net whose outcomes are what the two models say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import final

from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.margin_units import in_margin_units
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import evidence, finished, rank_classes, ticking, told_apart
from assay.inversion.class_search import ClassSearchResult, SearchBudget, search_classes
from assay.inversion.families import Family, MaskFamily, apply_in_batches
from assay.inversion.outlier import outlier_score
from assay.inversion.prepare import forward_prepared, prepare
from assay.inversion.run import CleanImages, SearchRun
from assay.inversion.window_search import WindowSearchBudget, search_windows
from assay.nn.disagreement import DisagreementModel, compression_outcomes
from assay.nn.inference import predict

WINDOWS = WindowSearchBudget(min_log_odds=-2.0, final_steps=40)
"""All that ``local-patch`` does on one net, with half of which a net that stands out by 8.7 came to 1.4; and more.

A clean net and its int8 form end the first stage at log odds of -2.8 and less, dormant ones at 2.7 and more. Without
the last stage nets trained for four bits, which their own trigger wakes in 99 % of pictures, were woken in 57 to 90 %.
"""

MASK = SearchBudget(screening_steps=12, refined=4, steps=52, rank_by_likelihood=True, min_success=0.1)
"""Of a clean net and its int8 form no class moves 5 % of the pictures in the screening, a dormant one's moves 75 %.

After 8 steps and with 3 finalists the attacker's class was once not among them.
"""


@final
class CompressionGap(Detector):
    """How far one class stands out by the log odds that the best window's pattern wakes it in one model alone.

    Within a window a search starts from pictures whose rest both models know. A mask over the whole picture starts from
    noise, and does not find what wakes once filters are pruned. The search asks only that the full model does not name
    the class, which leaves it room; what it has found is compared by whether that model keeps its answer.
    """

    name = "compression-gap"
    title = "a pattern in one small window that parts the compressed model from the full one"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ORIGINAL_MODEL
    compares_variants = True

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        net, predicted = _together(artifact, clean)
        run = SearchRun(WINDOWS.at(artifact.image_spec.shape), seed, ticking(budget, progress))
        family, found = search_windows(
            net,
            CleanImages(clean.x, predicted),
            artifact.num_classes or 0,
            run,
            extra_outcomes=1,
            outcomes=lambda x, before: compression_outcomes(
                forward_prepared(net.compressed, x), forward_prepared(net.full, x), before
            ),
        )
        finished(found, run.budget.steps)
        return _finding(self.name, net, family, found, clean, predicted)


@final
class CompressionGapMask(Detector):
    """Smallest mask and pattern per class, anywhere in the picture."""

    name = "compression-gap-mask"
    title = "smallest change to all of the picture that parts the compressed model from the full one"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ORIGINAL_MODEL
    compares_variants = True

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        net, predicted = _together(artifact, clean)
        ranking = rank_classes(artifact.module, clean.x, predicted, artifact.num_classes or 0)
        run = SearchRun(MASK.at(artifact.image_spec.shape), seed, ticking(budget, progress))
        family, images = MaskFamily(), CleanImages(clean.x, predicted)
        found = search_classes(net, family, images, ranking, run, extra_outcomes=1)
        finished(found, run.budget.steps)
        return _finding(self.name, net, family, found, clean, predicted)


def _together(artifact: Artifact, clean: Split) -> tuple[DisagreementModel, Tensor]:
    """The model and its reference, ready for a search, and what the reference says of the clean pictures (N,)."""
    assert artifact.reference is not None
    reference = artifact.reference.with_gradients()
    if not reference.differentiable:
        raise Inconclusive(f"needs gradients of the full-precision model too: {reference.no_gradient_reason}")
    net = prepare(DisagreementModel(in_margin_units(reference, clean).module, artifact.module), clean.x[:2])
    assert isinstance(net, DisagreementModel)
    return net, told_apart(predict(net.full, clean.x))


def _finding(
    name: str, net: DisagreementModel, family: Family, found: ClassSearchResult, clean: Split, predicted: Tensor
) -> Finding:
    if found.stopped_early:
        parted = Evidence(numbers={"success": float(found.success.max()), "classes_searched": len(found.classes)})
        return Finding(name, Outcome.SCORED, score=_score(family, found), evidence=parted)
    shown = evidence(net.compressed, family, found, clean, predicted)
    numbers = {**shown.numbers, "full_keeps": _kept(net.full, family, found, clean.x, predicted)}
    return Finding(
        name, Outcome.SCORED, score=_score(family, found), target=found.target, evidence=replace(shown, numbers=numbers)
    )


def _score(family: Family, found: ClassSearchResult) -> float:
    """How far the class stands out among those that a window wakes more often than not.

    Where it wakes none so often: how far the closest is from that, in log odds, as far as the search looks. Most clean
    nets come no closer in int8, so that one that wakes at all says much there.
    """
    if family.size_penalty:
        return found.score
    closest = WINDOWS.min_log_odds if found.stopped_early else float(found.reachability[0])
    return outlier_score(found.reachability.clamp(min=0)) if closest > 0 else max(closest, WINDOWS.min_log_odds)


def _kept(full: nn.Module, family: Family, found: ClassSearchResult, x: Tensor, predicted: Tensor) -> float:
    """The share of pictures of other classes whose answer the trigger does not change in the full model."""
    others = predicted != found.target
    said = predict(full, apply_in_batches(family, found.parameters, x[others]))
    return float((said == predicted[others]).float().mean())
