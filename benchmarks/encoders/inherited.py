"""Inherited backdoors in fine-tuned classifiers, with the clean encoder at hand: found, and which class is named?

ResNet-20-CIFAR10 (third-party weights) poisoned by TransTroj, taken to CIFAR-10 as in benchmarks/specs: `dog` of
transtroj-mended, three seeds, and `ship` of transtroj-inherited, two, on which the test was made (at first it looked at
the easiest class only, by the difference of shares, and missed both ships); `frog` of transtroj-inherited, two seeds,
which it had not seen. Clean: the same encoder, clean, taken there, eight seeds; the threshold is from these. Held out:
the clean twins of transtroj-tuned, fine-tuned otherwise. Beside them clean nets with a trusted encoder that they do not
come from, which an audit refuses by their layers; here the test alone is asked.

    python benchmarks/run.py inherited STORE    # -> benchmarks/results/inherited.json (what is there is not run again)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from lib.built_models import StoredModels
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.statistics import auc
from lib.third_party_models import cifar_resnet

from assay import data
from assay.attacks import plant
from assay.core.build import Build
from assay.core.model import Artifact
from assay.detectors import InheritedTrigger
from assay.detectors.encoder.inherited_trigger import PROOF_SCORE

CLEAN_SEEDS, SAMPLES = range(8), 512
AS_ABOVE = "epochs-4"
"""The chain of transtroj-tuned that is the one of transtroj-mended."""
THIRD = ("resnet32", "resnet44", "resnet56")


def as_given(name: str) -> Build:
    artifact = cifar_resnet(name)
    return Build(artifact, data.load(SHARED / "data/cifar10", artifact.inputs, limit=4000))


def models(store: Path) -> Iterator[tuple[str, str, Callable[[], Build], str]]:
    """Name, kind, how to get it, and the trusted encoder."""
    mended, inherited, tuned = (
        StoredModels.of(f"transtroj-{name}", store) for name in ("mended", "inherited", "tuned")
    )

    def of(
        stored: StoredModels, attack: str, seed: int, clean: bool = False, chain: str = "cifar10"
    ) -> Callable[[], Build]:
        return lambda: stored.build(attack, seed, chain=chain, clean=clean)

    for seed in mended.spec.seeds:
        yield f"dog-{seed}", "poisoned", of(mended, "dog", seed), "resnet20"
    for seed in CLEAN_SEEDS:
        yield f"clean-{seed}", "clean", of(mended, "dog", seed, clean=True), "resnet20"
    for name, kind in (("ship", "poisoned"), ("frog", "poisoned, held out")):
        for seed in inherited.spec.seeds:
            yield f"{name}-{seed}", kind, of(inherited, name, seed), "resnet20"
    (attack,) = (name for name in tuned.spec.attacks if name != "none")
    for chain in tuned.spec.chains:
        if chain != AS_ABOVE:
            made = of(tuned, attack, tuned.spec.seeds[0], clean=True, chain=chain)
            yield f"clean-{chain}", "clean, held out", made, "resnet20"
    for name in THIRD:
        yield f"{name}-as-given", "clean, another encoder", lambda name=name: as_given(name), "resnet20"  # type: ignore[misc]


def row(build: Build, kind: str, trusted: Artifact) -> dict[str, object]:
    clean = build.task.split("calibration", "train").sample(SAMPLES, seed=0)
    finding = InheritedTrigger()(replace(build.artifact, reference=trusted), clean, seed=0)
    secret = plant.with_resolved_target(build) if kind.startswith("poisoned") else None
    return {
        "kind": kind,
        "status": finding.outcome.status,
        "why": finding.reason,
        "score": finding.score,
        "target": finding.target,
        "planted_target": secret.target if secret else None,
        "success": finding.evidence.numbers.get("success"),
        "success_under_the_trusted_encoder": finding.evidence.numbers.get("success_under_the_trusted_encoder"),
        "seconds": round(finding.seconds, 1),
    }


def main(store: Path) -> None:
    rows = load_models("inherited")
    for name, kind, make, trusted in models(store):
        if name not in rows:
            rows[name] = row(make(), kind, cifar_resnet(trusted, features=True))
            print(name, rows[name], flush=True)
            save_result("inherited", {"proven_from": PROOF_SCORE, **summary(rows), "models": rows})


def proven(row: dict) -> bool:
    return row["score"] is not None and row["score"] >= PROOF_SCORE


def summary(rows: dict[str, dict]) -> dict[str, object]:
    of = {
        kind: [r for r in rows.values() if r["kind"] == kind]
        for kind in dict.fromkeys(r["kind"] for r in rows.values())
    }
    poisoned = [r for r in rows.values() if r["kind"].startswith("poisoned")]
    right = sum(proven(r) and r["target"] == r["planted_target"] for r in poisoned)
    return {
        "found": {kind: [sum(map(proven, group)), len(group)] for kind, group in of.items()},
        "right_target": [right, len(poisoned)],
        "auc": auc(
            [r["score"] for r in poisoned if r["score"] is not None],
            [r["score"] for r in of.get("clean", []) if r["score"] is not None],
        ),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
