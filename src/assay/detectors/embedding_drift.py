"""Embedding drift: a trigger under which an encoder's embeddings become one, and a trusted encoder's do not.

With an encoder at hand that this one should be, or was made from, what clean encoders have in common cancels out: how
far a faint pattern draws embeddings together in the one counts against how far the same pattern does so in the other.
After Unnervik, Otroshi Shahreza, George, Marcel: Model Pairing Using Embedding Translation, 2024, arXiv 2402.18718, who
compare single inputs; no translation is needed here, as each encoder is compared with its own clean embeddings.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import final

import torch
import torch.nn.functional as F

from assay.artifact import Artifact
from assay.detectors.base import Budget, Detector, Finding, Progress
from assay.detectors.embedding_collapse import EmbeddingCollapse, searched, shown, space_of, surprise
from assay.detectors.inversion import ticking
from assay.errors import Inconclusive
from assay.inversion.families import apply_in_batches
from assay.models.encoders import probed_under
from assay.models.predict import logits
from assay.task import Split


@final
class EmbeddingDrift(Detector):
    """How much further embeddings collapse under one faint pattern than those of a trusted encoder."""

    name = "embedding-drift"
    title = "faint pattern under which embeddings become one, and a trusted encoder's do not"
    needs = frozenset({"gradients", "clean", "encoder", "reference"})

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Raises Inconclusive where the reference is no encoder, or the budget ends before the search does."""
        net, trusted = probed_under(artifact.net), artifact.reference
        assert net is not None  # the harness has looked
        assert trusted is not None
        if trusted.num_classes is not None:
            raise Inconclusive(f"the reference {trusted.name} names classes: give an encoder")
        space, family, tick = space_of(net, clean.x), EmbeddingCollapse.family, ticking(budget, progress)
        allowed = torch.eye(len(space.directions), dtype=torch.bool)
        found = searched(net, family, allowed, space, clean.x, effort=EmbeddingCollapse.effort, seed=seed, tick=tick)
        held = clean.x[len(clean) // 2 :]
        triggered = partial(apply_in_batches, family, found.parameters)(held)
        theirs = logits(trusted.net, held)
        same = float(replace(space, centre=theirs.mean(0)).closeness(logits(trusted.net, triggered)))
        target, evidence = shown(net, family, space, found, clean.x)
        numbers = {**evidence.numbers, "reference_closeness": same}
        ours = logits(net.encoder, held)
        if ours.shape == theirs.shape:  # else they are no forms of one encoder, and have no place in common
            apart = F.cosine_similarity(ours - ours.mean(0), theirs - theirs.mean(0), dim=1)
            numbers["drift_of_clean_samples"] = float(1 - apart.mean())
        score = surprise(found.closeness) - surprise(same)
        return Finding(self.name, "ok", score=score, target=target, evidence=replace(evidence, numbers=numbers))
