"""Detection of inherited backdoors in fine-tuned classifiers, with the clean encoder as trusted encoder.

ResNet-20-CIFAR10 (third-party weights) is poisoned by TransTroj and fine-tuned to CIFAR-10 as in benchmarks/specs. The
test was developed on `dog` of transtroj-mended, three seeds, and `ship` of transtroj-inherited, two seeds. At first it
searched the easiest class only, by the difference of fractions, and missed both ships. `frog` of transtroj-inherited,
two seeds, was not used for development.

Clean: the clean encoder, fine-tuned in the same way, eight seeds; the threshold comes from these. Held out: the clean
controls of transtroj-tuned, fine-tuned in other ways. Also clean models with an unrelated trusted encoder. An audit
refuses those by their layers; here the test runs alone.

    python benchmarks/run.py inherited STORE    # -> benchmarks/results/inherited.json; resumable
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from lib import commands
from lib.built_models import StoredModels
from lib.paths import SHARED
from lib.results import ResumableRows
from lib.statistics import auc
from lib.third_party_models import cifar_resnet

from assay import data
from assay.attacks import plant
from assay.core.build import Build
from assay.core.model import Artifact
from assay.detectors import InheritedTrigger
from assay.detectors.encoder.inherited_trigger import PROOF_SCORE

CLEAN_SEEDS, SAMPLES = range(8), 512
SAME_CHAIN = "epochs-4"  # chain of transtroj-tuned that equals the one of transtroj-mended
UNRELATED = ("resnet32", "resnet44", "resnet56")


def as_given(name: str) -> Build:
    """Return a third-party classifier with its task."""
    artifact = cifar_resnet(name)
    return Build(artifact, data.load(SHARED / "data/cifar10", artifact.inputs, limit=4000))


def models(store: Path) -> Iterator[tuple[str, str, Callable[[], Build], str]]:
    """Yield name, kind, builder and trusted encoder of each model."""
    mended, inherited, tuned = (
        StoredModels.of(f"transtroj-{name}", store) for name in ("mended", "inherited", "tuned")
    )

    def builder(
        stored: StoredModels, attack: str, seed: int, clean: bool = False, chain: str = "cifar10"
    ) -> Callable[[], Build]:
        return lambda: stored.build(attack, seed, chain=chain, clean=clean)

    for seed in mended.spec.seeds:
        yield f"dog-{seed}", "poisoned", builder(mended, "dog", seed), "resnet20"
    for seed in CLEAN_SEEDS:
        yield f"clean-{seed}", "clean", builder(mended, "dog", seed, clean=True), "resnet20"
    for name, kind in (("ship", "poisoned"), ("frog", "poisoned, held out")):
        for seed in inherited.spec.seeds:
            yield f"{name}-{seed}", kind, builder(inherited, name, seed), "resnet20"
    (attack,) = (name for name in tuned.spec.attacks if name != "none")
    for chain in tuned.spec.chains:
        if chain != SAME_CHAIN:
            make = builder(tuned, attack, tuned.spec.seeds[0], clean=True, chain=chain)
            yield f"clean-{chain}", "clean, held out", make, "resnet20"
    for name in UNRELATED:
        yield f"{name}-as-given", "clean, another encoder", lambda name=name: as_given(name), "resnet20"  # type: ignore[misc]


def row(build: Build, kind: str, trusted: Artifact) -> dict[str, object]:
    """Run the detector on one model."""
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
    """Measure the missing models."""
    rows = ResumableRows("inherited", summary)
    candidates = {name: (kind, make, trusted) for name, kind, make, trusted in models(store)}
    for name in rows.missing(candidates):
        kind, make, trusted = candidates[name]
        rows.add(name, row(make(), kind, cifar_resnet(trusted, features=True)))


def is_proven(row: dict) -> bool:
    """Return True if the score counts as proof."""
    return row["score"] is not None and row["score"] >= PROOF_SCORE


def summary(rows: dict[str, dict]) -> dict[str, object]:
    """Return the counts by kind, and the AUC."""
    groups = {
        kind: [r for r in rows.values() if r["kind"] == kind]
        for kind in dict.fromkeys(r["kind"] for r in rows.values())
    }
    poisoned = [r for r in rows.values() if r["kind"].startswith("poisoned")]
    right = sum(is_proven(r) and r["target"] == r["planted_target"] for r in poisoned)
    return {
        "proven_from": PROOF_SCORE,
        "found": {kind: [sum(map(is_proven, group)), len(group)] for kind, group in groups.items()},
        "right_target": [right, len(poisoned)],
        "auc": auc(
            [r["score"] for r in poisoned if r["score"] is not None],
            [r["score"] for r in groups.get("clean", []) if r["score"] is not None],
        ),
    }


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("store", type=Path)
    main(command_line.parse_args().store)
