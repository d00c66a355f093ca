"""Models built by the bench, from its store. Missing models are built and stored."""

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
from lib.paths import ROOT, SPECS


@dataclass(frozen=True)
class StoredModels:
    """The models of one matrix.

    Keys in a store depend on the path of the data: use it from the same clone.
    """

    spec: Spec
    cache: Cache

    @classmethod
    def of(cls, name: str, store: Path) -> StoredModels:
        """Return the models of ``benchmarks/specs/NAME.yaml``, which has one task."""
        return cls(read_spec(SPECS / f"{name}.yaml"), Cache(ObjectStore(str(store / "models"))))

    def build(self, attack: str, seed: int, *, chain: str | None = None, clean: bool = False) -> Build:
        """Return one model.

        Args:
            attack: Name of the attack in the specification.
            seed: Seed of the chain.
            chain: Name of the chain; None: the model right after the attack.
            clean: Return the clean control, the same chain without the attack.
        """
        task = resolve_paths(self.spec.tasks[0], str(ROOT))
        method = self.spec.attacks[attack].with_recipe(task.recipe)
        chain_steps = (Method(ATTACK_STEP),) if chain is None else self.spec.chains[chain]
        steps = tuple(
            resolve_method_paths(method if step == Method(ATTACK_STEP) else step, str(ROOT)) for step in chain_steps
        )
        return build_model(task, clean_control(steps) if clean else steps, seed, self.cache)
