"""Local patch: the class to which a pattern in one small window sends most images.

The search detects patches of any content: stickers, cut-outs of photographs, many colors (BadNets: Gu, Dolan-Gavitt,
Garg, 2017, arXiv 1708.06733). A scan of solid patches does not try these, and a mask over the whole image misses them.
The patterns are those of Brown, Mane, Roy, Abadi, Gilmer: Adversarial Patch, 2017, arXiv 1712.09665. The null
distribution accounts for their effect on clean models.
"""

from __future__ import annotations

from typing import final

from torch import nn

from assay.core.model import Artifact
from assay.detectors.trigger_inversion.common import TriggerInversion, raise_if_incomplete
from assay.inversion.class_search import ClassSearchResult
from assay.inversion.families import Family
from assay.inversion.run import CleanImages, SearchRun, ShouldContinue
from assay.inversion.window_search import WindowSearchBudget, search_windows


@final
class LocalPatch(TriggerInversion):
    """Outlier score of the classes by their log odds under the pattern of the best window."""

    name = "local-patch"
    title = "how many images a pattern in one small window sends to one class"

    def search(
        self, artifact: Artifact, model: nn.Module, images: CleanImages, seed: int, should_continue: ShouldContinue
    ) -> tuple[Family, ClassSearchResult]:
        run = SearchRun(WindowSearchBudget().at(images.shape), seed, should_continue)
        family, found = search_windows(model, images, artifact.num_classes or 0, run)
        raise_if_incomplete(found, run.budget.steps)
        return family, found
