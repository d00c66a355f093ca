"""Persistence: a model that no gradient can change any more.

Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning Models, 2022, arXiv
2204.06974, section 5.3. Three copies and the majority of their votes. It is a tell by itself: nobody can fine-tune it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from assay.core.build import Build
from assay.nn.majority_vote import MajorityOfThree
from assay.stages.base import spec_of
from assay.stages.train import can_be_tuned


@dataclass(frozen=True, kw_only=True)
class Persist:
    """Majority of three copies: weights without gradients, the same classes."""

    name: str = "persist"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        """Raises UnusableInput for a model without classes or without weights in torch."""
        artifact = build.artifact
        can_be_tuned(artifact)
        assert artifact.num_classes is not None
        net = MajorityOfThree(copy.deepcopy(artifact.module).eval(), artifact.num_classes)
        return build.then(self.name, artifact.with_module(net.eval()))
