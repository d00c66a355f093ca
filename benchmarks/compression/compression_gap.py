"""The detector compression-gap on compression-activated backdoors in several variants, and on four third-party models.

    assay bench run benchmarks/specs/dormant.yaml --store STORE
    python benchmarks/run.py compression_gap dormant=STORE files=FOLDER ...  # results/compression_gap.json; resumable

Clean models are the models without a backdoor, the clean controls of the others, and the third-party models. None of
them is a reference model of the shipped null distribution. The detector gets 512 images of the calibration split and
the model as given. CA and ASR (of the planted trigger) are measured on the test split in the same variant.
Variants that an audit leaves out as broken are left out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lib import commands, compression_attacks
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.statistics import auc
from lib.third_party_models import cifar_resnet
from reference_models.null_images import PHOTOS

from assay import data
from assay.auditing.facts import Preconditions
from assay.auditing.variant_maker import MAX_DISAGREEMENT
from assay.auditing.verdict import MIN_ACCURACY, judge, scores_of
from assay.bench.spec import ValidityCriteria
from assay.calibration.file import load_shipped
from assay.calibration.matching import MatchedNull
from assay.calibration.null import FALSE_ALARM_RATE, NullDistribution
from assay.calibration.reference import detector_of
from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.core.result import VariantOutcome, VariantResult
from assay.detectors import CompressionGap, NeuralCleanse
from assay.nn.inference import predict
from assay.stages import variants

VARIANTS = ("int8", "int8-tensor", "int4", "prune-2:4", "filters-30")
THIRD_PARTY = ("resnet20", "resnet32", "resnet44", "resnet56")
SAMPLES = 512


@dataclass(frozen=True)
class Candidate:
    """A model to measure."""

    name: str
    build: Build
    clean_control: Build | None  # None without an attack
    seed: int


def candidates_of(spec: str, store: Path) -> Iterator[Candidate]:
    """Yield the models of one specification and their clean controls."""
    for model in compression_attacks.models(spec, store):
        yield Candidate(model.name, model.build, model.clean_control, model.seed)
        # "twin of" is the key in the result file.
        yield Candidate(f"twin of {model.name}", model.clean_control, None, model.seed)


def third_party() -> Iterator[Candidate]:
    """Yield the clean third-party ResNets."""
    for name in THIRD_PARTY:
        artifact = cifar_resnet(name)
        task = data.load(SHARED / "data/cifar10", artifact.inputs)
        yield Candidate(f"third-party {name}", Build(artifact, task), None, 0)


def without_duplicates(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Yield each model once: attacks of one recipe share their clean control."""
    seen = set()
    for candidate in candidates:
        if candidate.build.artifact.digest not in seen:
            seen.add(candidate.build.artifact.digest)
            yield candidate


def measure(candidate: Candidate, known: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one model: score and rates of each variant. Variants in ``known`` are not measured again."""
    build, seed = candidate.build, candidate.seed
    clean = build.task.split("calibration").sample(SAMPLES, seed=seed)
    variants_measured = {"full": known["full"] if "full" in known else measure_full(candidate, clean)}
    for name in VARIANTS:
        variants_measured[name] = known[name] if name in known else measure_variant(name, build, clean, seed)
    return {**compression_attacks.describe_attack(build, seed), "forms": variants_measured}


def measure_full(candidate: Candidate, clean: Split) -> dict[str, Any]:
    """Return the rates of the model as given and of its clean control, and the score of plain inversion."""
    build = candidate.build
    plain = NeuralCleanse()(build.artifact, clean, seed=candidate.seed)
    full = compression_attacks.rates(build.artifact.module, build.task, build.secret)
    row: dict[str, Any] = {**full, "neural_cleanse": {"score": plain.score, "target": plain.target}}
    if build.secret is not None and candidate.clean_control is not None:
        control = compression_attacks.rates(candidate.clean_control.artifact.module, build.task, build.secret)
        row |= {f"clean_twin_{figure}": value for figure, value in control.items()}
    return row


def measure_variant(name: str, build: Build, clean: Split, seed: int) -> dict[str, Any]:
    """Return the rates of one variant and the finding of the detector, unless an audit leaves it out."""
    variant = variants.make(name, build.artifact, clean, seed=seed)
    agreement = float((predict(variant.module, clean.x) == predict(build.artifact.module, clean.x)).float().mean())
    row: dict[str, Any] = {
        **compression_attacks.rates(variant.module, build.task, build.secret),
        "agreement": agreement,
    }
    if 1 - agreement <= MAX_DISAGREEMENT:
        finding = CompressionGap()(replace(variant, reference=build.artifact), clean, seed=seed)
        numbers = dict(finding.evidence.numbers)
        row |= {"status": finding.outcome.status, "reason": finding.reason, "seconds": round(finding.seconds, 1)}
        row |= {"score": finding.score, "target": finding.target, "numbers": numbers}
        if finding.evidence.apply is not None and finding.target is not None:
            trigger = Secret("found", finding.evidence.apply, finding.target)
            row["found"] = compression_attacks.rates(variant.module, build.task, trigger)["attack_success"]
            full = compression_attacks.rates(build.artifact.module, build.task, trigger)
            row["found_in_full"] = full["attack_success"]
    return row


def summary(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return one statistic and verdict per model, by this test alone over all variants, and the counts of verdicts.

    An attack is valid (``working``) under three conditions. It is inactive in the full model and active in its variant.
    The full model is nearly as accurate as the clean control. An audit would not leave out the variant as broken.
    """
    models = {name: model for name, model in models.items() if _is_accurate(model)}
    null = reference_models()
    rows = {name: _verdict(model, null) for name, model in models.items()}
    clean = {name: row for name, row in rows.items() if models[name]["attack"] is None}
    planted = {name: row for name, row in rows.items() if models[name]["attack"] is not None}
    working = {name: row for name, row in planted.items() if _is_valid(models[name])}
    figures = {
        "reference_models": len(null),
        "clean": len(clean),
        "false_alarms": sum(row["found"] for row in clean.values()),
        "planted": len(planted),
        "working": len(working),
        "found": sum(row["found"] for row in working.values()),
        "right_target": sum(row["found"] and row["right"] for row in working.values()),
        "auc": auc([row["statistic"] for row in working.values()], [row["statistic"] for row in clean.values()]),
    }
    plain, cleanse = (
        [models[name]["forms"]["full"]["neural_cleanse"]["score"] for name in names] for names in (clean, working)
    )
    return {**figures, "auc_neural_cleanse": auc(cleanse, plain), "judged": rows}


def reference_models() -> NullDistribution:
    """Return the reference models that an audit compares with here, with scores of this test only.

    None of them is among the models of this benchmark.
    """
    null = load_shipped()
    assert null is not None
    scored = tuple(
        replace(model, scores={test: s for test, s in model.scores.items() if detector_of(test) == CompressionGap.name})
        for model in null.models
        if model.family == PHOTOS and model.in_accuracy_band(1.0)
    )
    return replace(null, models=scored)


def _verdict(model: dict[str, Any], null: NullDistribution) -> dict[str, Any]:
    """Return the verdict on one row."""
    rows = {variant: row for variant, row in model["forms"].items() if variant != "full"}
    findings = tuple(
        Finding(
            CompressionGap.name,
            Outcome.SCORED if row["status"] == Outcome.SCORED.status else Outcome.ABSTAINED,
            variant,
            score=row["score"],
            target=row["target"],
        )
        for variant, row in rows.items()
        if "status" in row
    )
    results = tuple(
        VariantResult(variant, "", None, outcome=VariantOutcome.TESTED if "status" in row else VariantOutcome.BROKEN)
        for variant, row in rows.items()
    )
    verdict = judge(findings, results, MatchedNull(null), Preconditions(SAMPLES))
    scores = scores_of(findings)
    comparison = null.compare(scores)
    strongest = None if comparison is None else comparison.tests[0]
    target = None if strongest is None else scores[strongest].target
    return {
        "statistic": verdict.statistic,
        "p_value": verdict.p_value,
        "found": verdict.p_value is not None and verdict.p_value <= FALSE_ALARM_RATE,
        "form": strongest,
        "target": target,
        "right": target is not None and target == model["target"],
    }


def _is_accurate(model: dict[str, Any]) -> bool:
    """Return False for a model below the accuracy that an audit requires (training of a control may diverge)."""
    return bool(model["forms"]["full"]["clean_accuracy"] >= MIN_ACCURACY)


def _is_valid(model: dict[str, Any]) -> bool:
    """Return True if the attack worked, see :func:`summary`."""
    criteria, full, active = ValidityCriteria(), model["forms"]["full"], model["forms"][model["wakes_in"]]
    accurate = full["clean_twin_clean_accuracy"] - full["clean_accuracy"] <= criteria.drop
    usable = active["agreement"] >= 1 - MAX_DISAGREEMENT
    inactive = full["attack_success"] <= criteria.inactive_asr
    return inactive and active["attack_success"] >= criteria.asr and accurate and usable


def main(stores: list[tuple[str, Path]]) -> None:
    """Measure the missing variants of all models, and summarize."""
    models = load_models("compression_gap")
    candidates = chain(third_party(), *(candidates_of(spec, store) for spec, store in stores))
    for candidate in without_duplicates(candidates):
        known = models.get(candidate.name, {"forms": {}})["forms"]
        if set(known) < {"full", *VARIANTS}:
            models[candidate.name] = measure(candidate, known)
            rows = models[candidate.name]["forms"].items()
            print(candidate.name, {variant: (row.get("score"), row.get("target")) for variant, row in rows}, flush=True)
            save_result("compression_gap", {"models": models})
    save_result("compression_gap", {"models": models, **summary(models)})


def spec_and_store(text: str) -> tuple[str, Path]:
    """Return the parts of ``SPEC=STORE``."""
    spec, _, store = text.partition("=")
    return spec, Path(store)


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("stores", nargs="*", type=spec_and_store, metavar="SPEC=STORE")
    main(command_line.parse_args().stores)
