"""Embedding drift: a trigger under which an encoder's embeddings become one, and a trusted encoder's do not.

With an encoder at hand that this one should be, or was made from, what clean encoders have in common cancels out: how
far a faint pattern draws embeddings together in the one counts against how far the same pattern does so in the other.
Beside it stands how far the two agree on inputs with and without the pattern, once the embeddings of the one are
translated into those of the other (``pairing``, after Unnervik et al., 2024, arXiv 2402.18718).
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
from assay.detectors.encoder.embedding_collapse import EmbeddingCollapse, searched, shown, space_of, surprise
from assay.detectors.encoder.translation import FEWEST, paired
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import ticking
from assay.inversion.families import apply_in_batches
from assay.inversion.run import SearchRun
from assay.nn.encoders import find_cluster_probe
from assay.nn.inference import forward_batched


@final
class EmbeddingDrift(Detector):
    """How much further embeddings collapse under one faint pattern than those of a trusted encoder."""

    name = "embedding-drift"
    title = "faint pattern under which embeddings become one, and a trusted encoder's do not"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ORIGINAL_MODEL | Requirement.ENCODER

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Raises Inconclusive where the reference is no encoder, or the budget ends before the search does."""
        net, trusted = find_cluster_probe(artifact.module), artifact.reference
        assert net is not None  # the harness has looked
        assert trusted is not None
        if trusted.num_classes is not None:
            raise Inconclusive(f"the reference {trusted.name} names classes: give an encoder")
        space, family, tick = space_of(net, clean.x), EmbeddingCollapse.family, ticking(budget, progress)
        allowed = torch.eye(len(space.directions), dtype=torch.bool)
        found = searched(net, family, allowed, space, clean.x, SearchRun(EmbeddingCollapse.effort, seed, tick))
        half = len(clean) // 2
        held = clean.x[half:]
        triggered = partial(apply_in_batches, family, found.parameters)(held)
        theirs, theirs_triggered = forward_batched(trusted.module, clean.x), forward_batched(trusted.module, triggered)
        same = float(replace(space, center=theirs[half:].mean(0)).closeness(theirs_triggered))
        target, evidence = shown(net, family, space, found, clean.x)
        numbers = {**evidence.numbers, "reference_closeness": same}
        if len(clean) >= FEWEST:
            pairing = paired(forward_batched(net.encoder, clean.x), theirs)
            agreement = pairing.agreement(forward_batched(net.encoder, triggered), theirs_triggered)
            numbers["agreement_on_clean_samples"] = float(pairing.clean.median())
            numbers["agreement_on_triggered_samples"] = float(agreement.median())
        score = surprise(found.closeness) - surprise(same)
        return Finding(
            self.name, Outcome.SCORED, score=score, target=target, evidence=replace(evidence, numbers=numbers)
        )
