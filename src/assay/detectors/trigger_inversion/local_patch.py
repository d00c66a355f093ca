"""Local patch: the class to which a pattern in one small window sends most images.

The search detects patches of any content: stickers, cut-outs of photographs, many colors (BadNets: Gu, Dolan-Gavitt,
Garg, 2017, arXiv 1708.06733). A scan of solid patches does not try these, and a mask over the whole image misses them.
The patterns are those of Brown, Mane, Roy, Abadi, Gilmer: Adversarial Patch, 2017, arXiv 1712.09665. The null
distribution accounts for their effect on clean models.
"""

from __future__ import annotations

from typing import Any, final

from torch import nn

from assay.core.model import Artifact
from assay.detectors.cost import Cost
from assay.detectors.trigger_inversion.common import TriggerInversion
from assay.inversion.class_search import ClassSearchResult
from assay.inversion.families import Family
from assay.inversion.run import CleanImages, SearchRun
from assay.inversion.window_search import WindowSearchBudget, search_windows


@final
class LocalPatch(TriggerInversion):
    """Outlier score of the classes by their log odds under the pattern of the best window."""

    name = "local-patch"
    title = "how many images a pattern in one small window sends to one class"
    cost = Cost(7_000)
    search_budget = WindowSearchBudget(class_batch=8)

    def search(
        self, artifact: Artifact, model: nn.Module, images: CleanImages, run: SearchRun[Any]
    ) -> tuple[Family, ClassSearchResult]:
        return search_windows(model, images, artifact.num_classes or 0, run)
