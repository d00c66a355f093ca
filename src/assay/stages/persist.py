"""Persistence stage: a model without useful gradients.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 5.3. Three copies vote. The result is suspicious by itself: fine-tuning has no effect on it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from assay.core.build import Build
from assay.nn.majority_vote import MajorityOfThree
from assay.stages.base import Stage
from assay.stages.train import require_trainable


@dataclass(frozen=True, kw_only=True)
class Persist(Stage):
    """Majority vote of three copies: the same predicted classes, but no gradients for the weights."""

    name: str = "persist"
    needs_data: ClassVar[bool] = False

    def __call__(self, build: Build, *, seed: int) -> Build:
        artifact = build.artifact
        require_trainable(artifact)
        assert artifact.num_classes is not None
        voters = MajorityOfThree(copy.deepcopy(artifact.module).eval(), artifact.num_classes)
        return build.then(self.name, artifact.with_module(voters.eval()))
