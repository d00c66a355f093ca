"""Models that the bench has built, out of its store; what is missing there is built, and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.bench.cells import clean_control
from assay.bench.initial import resolve_method_paths, resolve_paths
from assay.bench.spec import ATTACK_STEP, Method, Spec
from assay.bench.spec_reader import read_spec
from assay.bench.worker import build_model
from assay.core.build import Build
from assay.io.object_store import ObjectStore
from assay.stages.cache import Cache
from lib.paths import ROOT


@dataclass(frozen=True)
class StoredModels:
    """The models of one matrix. A store knows models by where their data lie: use it from the same clone."""

    spec: Spec
    cache: Cache

    @classmethod
    def of(cls, name: str, store: Path) -> StoredModels:
        """Those of ``benchmarks/specs/<name>.yaml``, which has one task."""
        return cls(read_spec(ROOT / f"benchmarks/specs/{name}.yaml"), Cache(ObjectStore(str(store / "models"))))

    def build(self, attack: str, seed: int, *, chain: str | None = None, clean: bool = False) -> Build:
        """What ``attack`` planted, at the end of ``chain``, or by itself; ``clean``: its twin without the attack."""
        task = resolve_paths(self.spec.tasks[0], str(ROOT))
        method = self.spec.attacks[attack].with_recipe(task.recipe)
        chained = (Method(ATTACK_STEP),) if chain is None else self.spec.chains[chain]
        steps = tuple(
            resolve_method_paths(method if step == Method(ATTACK_STEP) else step, str(ROOT)) for step in chained
        )
        return build_model(task, clean_control(steps) if clean else steps, seed, self.cache)
