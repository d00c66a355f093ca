"""Compression gap: one trigger for which the compressed model predicts a class, and the original model does not.

A compression-activated backdoor is inactive at full precision and active once the model is pruned or quantized.
Tian, Suya, Xu, Evans: Stealthy Backdoors as Compression Artifacts, 2021, arXiv 2104.15129.

A backdoored model has such a trigger for one class. A trigger that moves a clean model also moves its compressed
variant. The gap is then small, or equal for every class. The method is new; its searches are those of ``local-patch``
and ``neural-cleanse``, on the outcomes of both models together.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, final

from torch import nn

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.common import continue_within, require_two_classes
from assay.detectors.cost import Cost
from assay.detectors.margin_units import in_margin_units
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import raise_if_incomplete, rank_classes, trigger_evidence
from assay.inversion.class_search import ClassSearchResult, SearchBudget, search_classes
from assay.inversion.families import Family, MaskFamily, apply_in_batches
from assay.inversion.forward import forward_prepared
from assay.inversion.outlier import outlier_score
from assay.inversion.prepare import prepare
from assay.inversion.run import CleanImages, SearchRun
from assay.inversion.window_search import WindowSearchBudget, search_windows
from assay.nn.disagreement import DisagreementModel, compression_outcomes
from assay.nn.inference import predict

# More windows than ``local-patch``, and a last stage. With half of the steps, a model with score 8.7 got 1.4. Clean
# models and their int8 variants end the first stage at log odds of at most -2.8, models with compression-activated
# backdoors at 2.7 or more. The planted trigger of models trained for four bits succeeds on 99 % of images. Without the
# last stage the found trigger succeeds on 57 to 90 %.
#
# Two checks end a search early, with the lowest score. The first follows after seven steps, by the largest log odds of
# a class. With four seeds, backdoored models had -1.6 to 4.2 (int8) and 0.4 to 10.9 (2:4 sparse), and one of pruned
# filters 8.5 or more. A clean model in int8 had -4.8 to -2.8. After six steps the first had -2.1 with one seed. The
# second check follows after all windows. Pruning damages clean models, so several classes have positive log odds, with
# outlier scores of 0.5 to 4.3. Backdoored models had 4.8 to 8.9. The final scores of nearly all reference models, made
# without these checks, are below 3 too. With two windows per class, the int8 model was missed with two seeds of four.
WINDOW_BUDGET = WindowSearchBudget(
    screening_steps=7, windows_per_class=6, min_log_odds=-2.0, min_outlier_score=3.0, final_steps=40
)

# For a clean model and its int8 variant, no class gets 5 % of the images in the screening; for a
# compression-activated backdoor, one gets 75 %. After 8 steps and with 3 refined classes, the target was once missed.
MASK_BUDGET = SearchBudget(screening_steps=12, refined=4, steps=52, rank_by_likelihood=True, min_success=0.1)


class GapDetector(Detector):
    """Search for a trigger on which a variant and its original model disagree."""

    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ORIGINAL_MODEL
    compares_variants = True
    search_budget: ClassVar[SearchBudget | WindowSearchBudget]

    @abstractmethod
    def search(
        self, artifact: Artifact, models: DisagreementModel, images: CleanImages, run: SearchRun[Any]
    ) -> tuple[Family, ClassSearchResult]:
        """Search for triggers.

        Args:
            artifact: The variant.
            models: Variant and original model from ``prepare``.
            images: Clean images, with the predictions of the original model.
            run: Budget, seed and callback of the search.

        Returns:
            The family of the triggers, and the triggers.
        """

    @abstractmethod
    def score(self, found: ClassSearchResult) -> float:
        """Return the score of a search result."""

    @final
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        assert artifact.reference is not None  # checked by the harness
        original = artifact.reference.with_gradients()
        if not original.differentiable:
            raise Inconclusive(f"needs gradients of the original model too: {original.no_gradient_reason}")
        models = prepare(DisagreementModel(in_margin_units(original, clean).module, artifact.module), clean.x[:2])
        assert isinstance(models, DisagreementModel)
        images = CleanImages(clean.x, require_two_classes(predict(models.full, clean.x)))
        search = SearchRun(self.search_budget.at(images.shape), seed, continue_within(budget, progress))
        family, found = self.search(artifact, models, images, search)
        raise_if_incomplete(found, search.budget.steps)
        score = self.score(found)
        if found.stopped_early:
            numbers = {"success": float(found.success.max()), "classes_searched": len(found.classes)}
            return Finding(self.name, Outcome.SCORED, score=score, evidence=Evidence(numbers=numbers))
        evidence = trigger_evidence(models.compressed, family, found, images)
        kept = _unchanged_rate(models.full, family, found, images)
        evidence = replace(evidence, numbers={**evidence.numbers, "full_keeps": kept})
        return Finding(self.name, Outcome.SCORED, score=score, target=found.target, evidence=evidence)


@final
class CompressionGap(GapDetector):
    """Outlier score of the classes by the log odds that the best window's pattern activates them in the variant only.

    A search inside a window starts from images that both models know outside of it. A mask over the whole image starts
    from noise, and does not find backdoors activated by filter pruning. The search only requires that the original
    model does not predict the class. The final comparison requires that it keeps its clean prediction.
    """

    name = "compression-gap"
    title = "pattern in one small window that works on the compressed model only"
    cost = Cost(6_000)  # 4,500 without prospects, as of most clean models, else up to 38,000
    search_budget = WINDOW_BUDGET

    def search(
        self, artifact: Artifact, models: DisagreementModel, images: CleanImages, run: SearchRun[Any]
    ) -> tuple[Family, ClassSearchResult]:
        return search_windows(
            models,
            images,
            artifact.num_classes or 0,
            run,
            extra_outcomes=1,
            outcomes=lambda x, predicted: compression_outcomes(
                forward_prepared(models.compressed, x), forward_prepared(models.full, x), predicted
            ),
        )

    def score(self, found: ClassSearchResult) -> float:
        """Return the outlier score among the classes with positive log odds.

        Without such a class: the log odds of the closest class, at least those at which the search stops. Few clean
        models come closer in int8, so a class that comes closer is suspicious by itself.
        """
        lowest = WINDOW_BUDGET.min_log_odds
        if found.stopped_early:
            return lowest
        closest = float(found.reachability[0])
        return outlier_score(found.reachability.clamp(min=0)) if closest > 0 else max(closest, lowest)


@final
class CompressionGapMask(GapDetector):
    """Smallest mask and pattern for each class, anywhere in the image."""

    name = "compression-gap-mask"
    title = "smallest change to the whole image that works on the compressed model only"
    cost = Cost(20_000)
    search_budget = MASK_BUDGET

    def search(
        self, artifact: Artifact, models: DisagreementModel, images: CleanImages, run: SearchRun[Any]
    ) -> tuple[Family, ClassSearchResult]:
        ranking = rank_classes(artifact.module, images, artifact.num_classes or 0)
        family = MaskFamily()
        return family, search_classes(models, family, images, ranking, run, extra_outcomes=1)

    def score(self, found: ClassSearchResult) -> float:
        return found.score


def _unchanged_rate(full: nn.Module, family: Family, found: ClassSearchResult, images: CleanImages) -> float:
    """Return the fraction of images of other classes whose prediction the trigger does not change in one model.

    Args:
        full: The original model from ``prepare``.
        family: Family of the trigger.
        found: Result of the search.
        images: Clean images.
    """
    others = images.predicted != found.target
    predicted = predict(full, apply_in_batches(family, found.parameters, images.x[others]))
    return float((predicted == images.predicted[others]).float().mean())
