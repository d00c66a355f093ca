"""Chains of stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from assay.core.build import Build
from assay.stages.base import Stage
from assay.stages.cache import Cache, digest_of_task


@dataclass(frozen=True)
class Chain(Stage):
    """Several stages in sequence, each with the same seed. A chain is a stage itself."""

    stages: tuple[Stage, ...]
    name: str = "chain"
    cache: Cache | None = None

    def spec(self) -> dict[str, Any]:
        return {"class": "Chain", "name": self.name, "stages": [stage.spec() for stage in self.stages]}

    def __call__(self, build: Build, *, seed: int) -> Build:
        if self.cache is not None:
            return self.cache.run_all(self.stages, build, seed=seed, data_digest=digest_of_task(build.task))
        for stage in self.stages:
            build = stage(build, seed=seed)
        return build
