"""The gap detector on the models of matrices of sleeping backdoors, in many forms, and on the four third-party nets.

    assay bench run benchmarks/specs/dormant.yaml --store STORE
    python benchmarks/run.py compression_gap dormant=STORE files=FOLDER ...  # -> results/compression_gap.json; resumable

Clean are the models without a backdoor, the clean twins of the others, and the third-party nets. They are judged by the
shipped reference models, in which none of them is. The detector has 512 pictures of the calibration split and the model
as given, nothing else; CA and ASR beside its scores are of the test split, in the same form, ASR of what was planted.
Forms that an audit would leave out as broken are left out here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.statistics import auc
from lib.third_party_models import cifar_resnet
from reference_models.null_images import PHOTOS

from assay import data
from assay.auditing.detection import MAX_DISAGREEMENT
from assay.auditing.facts import Preconditions
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
from compression import compression_attacks as sleepers

FORMS = ("int8", "int8-tensor", "int4", "prune-2:4", "filters-30")
THIRD_PARTY = ("resnet20", "resnet32", "resnet44", "resnet56")
SAMPLES = 512


@dataclass(frozen=True)
class Candidate:
    """A model to be looked at."""

    name: str
    build: Build
    twin: Build | None  # of one with an attack
    seed: int


def everyone(spec: str, store: Path) -> Iterator[Candidate]:
    for model in sleepers.models(spec, store):
        yield Candidate(model.name, model.build, model.twin, model.seed)
        yield Candidate(f"twin of {model.name}", model.twin, None, model.seed)


def third_party() -> Iterator[Candidate]:
    for name in THIRD_PARTY:
        artifact = cifar_resnet(name)
        task = data.load(SHARED / "data/cifar10", artifact.inputs)
        yield Candidate(f"third-party {name}", Build(artifact, task), None, 0)


def once(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Attacks of one recipe share their clean twin."""
    seen = set()
    for candidate in candidates:
        if candidate.build.artifact.digest not in seen:
            seen.add(candidate.build.artifact.digest)
            yield candidate


def looked_at(candidate: Candidate, known: dict[str, Any]) -> dict[str, Any]:
    """What the detector says of each form, and how the model and its backdoor fare there; ``known`` forms are kept."""
    build, seed = candidate.build, candidate.seed
    clean = build.task.split("calibration").sample(SAMPLES, seed=seed)
    found = {"full": known["full"] if "full" in known else asleep(candidate, clean)}
    for name in FORMS:
        found[name] = known[name] if name in known else in_form(name, build, clean, seed)
    return {**sleepers.facts(build, seed), "forms": found}


def asleep(candidate: Candidate, clean: Split) -> dict[str, Any]:
    """The model as given, its clean twin with the same trigger, and what plain inversion says of it."""
    build = candidate.build
    plain = NeuralCleanse()(build.artifact, clean, seed=candidate.seed)
    full = sleepers.rates(build.artifact.module, build.task, build.secret)
    row: dict[str, Any] = {**full, "neural_cleanse": {"score": plain.score, "target": plain.target}}
    if build.secret is not None and candidate.twin is not None:
        control = sleepers.rates(candidate.twin.artifact.module, build.task, build.secret)
        row |= {f"clean_twin_{figure}": value for figure, value in control.items()}
    return row


def in_form(name: str, build: Build, clean: Split, seed: int) -> dict[str, Any]:
    """One form of the model, and the search beside it unless an audit would leave it out."""
    form = variants.make(name, build.artifact, clean, seed=seed)
    agreement = float((predict(form.module, clean.x) == predict(build.artifact.module, clean.x)).float().mean())
    row = {**sleepers.rates(form.module, build.task, build.secret), "agreement": agreement}
    if 1 - agreement <= MAX_DISAGREEMENT:
        finding = CompressionGap()(replace(form, reference=build.artifact), clean, seed=seed)
        numbers = dict(finding.evidence.numbers)
        row |= {"status": finding.outcome.status, "reason": finding.reason, "seconds": round(finding.seconds, 1)}
        row |= {"score": finding.score, "target": finding.target, "numbers": numbers}
        if finding.evidence.apply is not None and finding.target is not None:
            trigger = Secret("found", finding.evidence.apply, finding.target)
            row["found"] = sleepers.rates(form.module, build.task, trigger)["attack_success"]
            row["found_in_full"] = sleepers.rates(build.artifact.module, build.task, trigger)["attack_success"]
    return row


def summary(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All forms of a model in one number, as in an audit, and judged as there, but by this test alone.

    ``working``: the attack sleeps in the full model, which knows its task as the clean twin does, and wakes in its
    form, which an audit would not leave out as broken.
    """
    models = {name: model for name, model in models.items() if _learned(model)}
    null = reference_models()
    rows = {name: _judged(model, null) for name, model in models.items()}
    clean = {name: row for name, row in rows.items() if models[name]["attack"] is None}
    planted = {name: row for name, row in rows.items() if models[name]["attack"] is not None}
    working = {name: row for name, row in planted.items() if _works(models[name])}
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
    """Those that an audit compares such a model with: none of them is among the models of this benchmark."""
    null = load_shipped()
    assert null is not None
    scored = tuple(
        replace(model, scores={test: s for test, s in model.scores.items() if detector_of(test) == CompressionGap.name})
        for model in null.models
        if model.family == PHOTOS and model.in_accuracy_band(1.0)
    )
    return replace(null, models=scored)


def _judged(model: dict[str, Any], null: NullDistribution) -> dict[str, Any]:
    forms = {form: row for form, row in model["forms"].items() if form != "full"}
    findings = tuple(
        Finding(
            CompressionGap.name,
            Outcome.SCORED if row["status"] == "ok" else Outcome.ABSTAINED,
            form,
            score=row["score"],
            target=row["target"],
        )
        for form, row in forms.items()
        if "status" in row
    )
    results = tuple(
        VariantResult(form, "", None, outcome=VariantOutcome.TESTED if "status" in row else VariantOutcome.BROKEN)
        for form, row in forms.items()
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


def _learned(model: dict[str, Any]) -> bool:
    """Of a net that did not (a clean twin's training may diverge) no audit would say anything."""
    return bool(model["forms"]["full"]["clean_accuracy"] >= MIN_ACCURACY)


def _works(model: dict[str, Any]) -> bool:
    band, full, awake = ValidityCriteria(), model["forms"]["full"], model["forms"][model["wakes_in"]]
    learned = full["clean_twin_clean_accuracy"] - full["clean_accuracy"] <= band.drop
    usable = awake["agreement"] >= 1 - MAX_DISAGREEMENT
    return full["attack_success"] <= band.inactive_asr and awake["attack_success"] >= band.asr and learned and usable


if __name__ == "__main__":
    torch.set_num_threads(1)
    models = load_models("compression_gap")
    stores = [given.split("=", 1) for given in sys.argv[1:]]
    candidates = [everyone(spec, Path(store)) for spec, store in stores]
    for candidate in once(chain(third_party(), *candidates)):
        known = models.get(candidate.name, {"forms": {}})["forms"]
        if set(known) < {"full", *FORMS}:
            models[candidate.name] = looked_at(candidate, known)
            forms = models[candidate.name]["forms"].items()
            print(candidate.name, {form: (row.get("score"), row.get("target")) for form, row in forms}, flush=True)
            save_result("compression_gap", {"models": models})
    save_result("compression_gap", {"models": models, **summary(models)})
