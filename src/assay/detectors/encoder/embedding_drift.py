"""Embedding drift: a trigger under which the embeddings of an encoder collapse, and those of a trusted encoder do not.

The trusted encoder is the original, or the one that this encoder was made from. Effects that clean encoders have in
common cancel out: the score is the collapse of the one encoder minus the collapse of the other under the same faint
pattern. The evidence adds the agreement of the two encoders on inputs with and without the pattern, after a translation
of embeddings (``translation``, after Unnervik et al., 2024, arXiv 2402.18718).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import final

import torch

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.common import continue_within
from assay.detectors.cost import Cost
from assay.detectors.encoder.embedding_collapse import (
    EmbeddingCollapse,
    collapse_evidence,
    collapse_score,
    embedding_space,
    find_collapse,
)
from assay.detectors.encoder.translation import MIN_SAMPLES, fit_pairing
from assay.detectors.requirement import Requirement
from assay.inversion.families import apply_in_batches
from assay.inversion.run import SearchRun
from assay.nn.encoders import find_cluster_probe
from assay.nn.inference import forward_batched


@final
class EmbeddingDrift(Detector):
    """Collapse under one faint pattern, minus the collapse of a trusted encoder."""

    name = "embedding-drift"
    title = "faint pattern under which embeddings become one, and a trusted encoder's do not"
    cost = Cost(1_000)
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ENCODER | Requirement.ORIGINAL_MODEL

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        probe, trusted = find_cluster_probe(artifact.module), artifact.reference
        assert probe is not None  # checked by the harness
        assert trusted is not None
        if trusted.num_classes is not None:
            raise Inconclusive(f"needs a trusted encoder, and {trusted.name} is a classifier")
        space, family = embedding_space(probe, clean.x), EmbeddingCollapse.family
        allowed = torch.eye(len(space.directions), dtype=torch.bool)
        search = SearchRun(EmbeddingCollapse.search_budget, seed, continue_within(budget, progress))
        found = find_collapse(probe, family, allowed, space, clean.x, search)
        half = len(clean) // 2
        triggered = partial(apply_in_batches, family, found.parameters)(clean.x[half:])
        reference, reference_triggered = (forward_batched(trusted.module, x) for x in (clean.x, triggered))
        reference_space = replace(space, center=reference[half:].mean(0))
        reference_closeness = float(reference_space.closeness(reference_triggered))
        target, evidence = collapse_evidence(probe, family, space, found, clean.x)
        numbers = {**evidence.numbers, "reference_closeness": reference_closeness}
        if len(clean) >= MIN_SAMPLES:
            pairing = fit_pairing(forward_batched(probe.encoder, clean.x), reference)
            agreement = pairing.agreement(forward_batched(probe.encoder, triggered), reference_triggered)
            numbers["agreement_on_clean_samples"] = float(pairing.clean.median())
            numbers["agreement_on_triggered_samples"] = float(agreement.median())
        score = collapse_score(found.closeness) - collapse_score(reference_closeness)
        evidence = replace(evidence, numbers=numbers)
        return Finding(self.name, Outcome.SCORED, score=score, target=target, evidence=evidence)
