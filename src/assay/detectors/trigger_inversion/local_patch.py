"""Local patch: the class that a pattern in one small window sends most pictures to.

Sees patches of any content: stickers, cut-outs of photographs, many colours (BadNets: Gu, Dolan-Gavitt, Garg, 2017,
arXiv 1708.06733), which a scan of plain patches does not try, and which a mask over the whole picture overlooks. The
patterns are those of Brown, Mane, Roy, Abadi, Gilmer: Adversarial Patch, 2017, arXiv 1712.09665: what they do to clean
nets is in the null.
"""

from __future__ import annotations

from typing import final

from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import evidence, finished, ticking, told_apart
from assay.inversion.prepare import prepare
from assay.inversion.run import CleanImages, SearchRun
from assay.inversion.window_search import WindowSearchBudget, search_windows
from assay.nn.inference import predict


@final
class LocalPatch(Detector):
    """How far one class stands out by the log odds that the best window's pattern gives it."""

    name = "local-patch"
    title = "how many pictures a pattern in one small window sends to one class"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES
    on_variants = False  # the patch scan looks at the other forms

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        net = prepare(artifact.module, clean.x[:2])
        predicted = told_apart(predict(net, clean.x))
        run = SearchRun(WindowSearchBudget().at(artifact.image_spec.shape), seed, ticking(budget, progress))
        family, found = search_windows(net, CleanImages(clean.x, predicted), artifact.num_classes or 0, run)
        finished(found, run.budget.steps)
        return Finding(
            self.name,
            Outcome.SCORED,
            score=found.score,
            target=found.target,
            evidence=evidence(net, family, found, clean, predicted),
        )
