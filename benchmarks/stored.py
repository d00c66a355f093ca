"""Models that the bench has built, out of its store; what is missing there is built, and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common import ROOT

from assay.bench.cells import clean_twin
from assay.bench.initial import located, with_whole_paths
from assay.bench.matrix import read
from assay.bench.spec import PLACE, Method, Spec
from assay.bench.worker import model_of
from assay.core.build import Build
from assay.io.object_store import Blobs
from assay.stages.chain import Cache


@dataclass(frozen=True)
class Stored:
    """The models of one matrix. A store knows models by where their data lie: use it from the same clone."""

    spec: Spec
    cache: Cache

    @classmethod
    def of(cls, name: str, store: Path) -> Stored:
        """Those of ``benchmarks/specs/<name>.yaml``, which has one task."""
        return cls(read(ROOT / f"benchmarks/specs/{name}.yaml"), Cache(Blobs(str(store / "models"))))

    def build(self, attack: str, seed: int, *, chain: str | None = None, clean: bool = False) -> Build:
        """What ``attack`` planted, at the end of ``chain``, or by itself; ``clean``: its twin without the attack."""
        task = located(self.spec.tasks[0], str(ROOT))
        method = self.spec.attacks[attack].trained_by(task.recipe)
        chained = (Method(PLACE),) if chain is None else self.spec.chains[chain]
        steps = tuple(with_whole_paths(method if step == Method(PLACE) else step, str(ROOT)) for step in chained)
        return model_of(task, clean_twin(steps) if clean else steps, seed, self.cache)
