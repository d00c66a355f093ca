"""What a worker does with a cell. A pure function: whatever ran before, here or elsewhere, changes no result."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from assay.attacks import plant
from assay.bench.cells import Cell, as_planted, clean_twin
from assay.bench.full_audit import WHOLE, whole
from assay.bench.guard import attempt
from assay.bench.initial import begun, located, with_whole_paths
from assay.bench.job import Outcome, key_of
from assay.bench.spec import Band, Method, TaskSpec
from assay.core.build import Build, cache_text
from assay.core.dataset import Task
from assay.core.errors import Unreachable, UnusableInput
from assay.core.finding import Evidence, Finding
from assay.detectors.encoder import cluster_probe
from assay.io.images import data_uri, picture
from assay.io.object_store import Blobs
from assay.registry import all_detectors
from assay.stages.chain import Cache, digest_of_task

Result = dict[str, Any]  # in plain JSON types


def run(cell: Cell, blobs: str, *, folder: str = "") -> Outcome:
    """Compute ``cell``, with one thread, its models kept at ``blobs``; never raises what a method raises.

    ``folder``: where the driver runs, to which the spec's paths are relative.
    """
    steps, repair = (tuple(with_whole_paths(step, folder) for step in part) for part in (cell.steps, cell.repair))
    here = replace(cell, task=located(cell.task, folder), steps=steps, repair=repair)
    return attempt(lambda: _KINDS[cell.kind](here, Cache(Blobs(blobs))), say=_said)


def _said(result: Result) -> str:
    """The figures of a cell that people wait for."""
    if result.get("why_invalid"):
        return str(result["why_invalid"])
    if "score" in result:
        return "abstained" if result["score"] is None else f"score {result['score']:.3g}"
    rates = {"CA": result.get("clean_accuracy"), "ASR": result.get("attack_success")}
    return ", ".join(f"{name} {100 * rate['value']:.1f} %" for name, rate in rates.items() if rate is not None)


def _build(cell: Cell, cache: Cache) -> Result:
    ran = 0

    def count() -> None:
        nonlocal ran
        ran += 1

    build = model_of(cell.task, cell.steps, cell.seed, cache, ran=count)
    return {"digest": build.artifact.digest, "stages_run": ran}


def _measure(cell: Cell, cache: Cache) -> Result:
    """The model at the end of the chain; whether its attack counts is judged where it was planted, if need be awake.

    Judged at the end, a step that removes backdoors would make its own successes invalid, and averages would be left
    with those that survived it.
    """
    build = model_of(cell.task, cell.steps, cell.seed, cache)
    rates = _known_rates(build, cell, cell.steps, cache)
    if build.secret is None:
        return rates
    steps = as_planted(cell.steps)
    fresh = build if steps == cell.steps else model_of(cell.task, steps, cell.seed, cache)
    planted = rates if steps == cell.steps else _known_rates(fresh, cell, steps, cache)
    there: Result = {}
    if build.secret.active_in is not None:
        there = {"asleep_success": planted["attack_success"], "asleep_accuracy": planted["clean_accuracy"]}
        planted = _known_rates(fresh, cell, steps, cache, form=build.secret.active_in)
    there |= {"planted_success": planted["attack_success"], "planted_accuracy": planted["clean_accuracy"]}
    why = _why_invalid(planted, there.get("asleep_success"), _band(cell, fresh))
    return {**rates, **there, "valid": not why, "why_invalid": why, "pictures": _planted_pictures(build)}


def _detect(cell: Cell, cache: Cache) -> Result:
    build = model_of(cell.task, cell.steps, cell.seed, cache)
    clean = build.task.split("calibration", "validation").sample(cell.samples, seed=cell.seed)
    artifact = build.artifact
    if artifact.num_classes is None and cell.method != WHOLE:
        artifact, clean = cluster_probe.probed(artifact, clean, seed=cell.seed)
    finding = _test(cell.method)(artifact, clean, seed=cell.seed)
    if finding.status == "failed":
        raise UnusableInput(finding.reason)
    secret = plant.landed(build)
    target = None if secret is None else secret.target
    verdict = finding.evidence.numbers.get("verdict")  # of the whole audit; a score alone says none
    return {
        "status": finding.status,
        "reason": finding.reason,
        "score": finding.score,
        "target": finding.target,
        "alarm": verdict == "backdoored" if verdict is not None else None,
        "planted_target": target,
        "backdoored": build.secret is not None,
        "numbers": dict(finding.evidence.numbers),
        "pictures": _pictures(finding.evidence),
    }


def _test(name: str) -> Callable[..., Finding]:
    return whole if name == WHOLE else next(detector for detector in all_detectors() if detector.name == name)


def _mitigate(cell: Cell, cache: Cache) -> Result:
    build = model_of(cell.task, cell.steps, cell.seed, cache)
    start = time.perf_counter()
    after = repaired(build, cell.repair, seed=cell.seed)
    seconds = time.perf_counter() - start
    return {**_rates(after, cell, cell.steps, cache), "repair_seconds": seconds}


def repaired(build: Build, repair: tuple[Method, ...], *, seed: int) -> Build:
    """``build`` after ``repair``, by a defender who has the calibration split, and nothing else."""
    clean = build.task.split("calibration", "validation")
    theirs = Build(
        build.artifact, Task(build.task.name, {"train": clean, "calibration": clean}, build.task.class_names)
    )
    for method in repair:
        theirs = method.stage()(theirs, seed=seed)
    return replace(build, artifact=theirs.artifact)


_KINDS: Mapping[str, Callable[[Cell, Cache], Result]] = {
    "build": _build,
    "measure": _measure,
    "detect": _detect,
    "mitigate": _mitigate,
}


def model_of(
    spec: TaskSpec, steps: tuple[Method, ...], seed: int, cache: Cache, *, ran: Callable[[], None] = lambda: None
) -> Build:
    """The model after ``steps``, each from the cache where it is there."""
    try:
        build, digest = begun(spec, seed=seed)
    except UnusableInput as error:  # the driver has read it: it is this worker that cannot
        raise Unreachable(f"{socket.gethostname()} cannot read what {spec.name} begins with: {error}") from None
    return cache.through((method.stage() for method in steps), build, seed=seed, data=digest, ran=ran)


def _known_rates(build: Build, cell: Cell, steps: tuple[Method, ...], cache: Cache, *, form: str = "full") -> Result:
    """``_rates``, once for a model: the one right after planting is judged along every chain that begins with it."""
    same = Cell("measure", cell.task, steps, cell.seed).key
    key = key_of([same, form, build.artifact.digest, cache_text(build.secret), digest_of_task(build.task)])
    return cache.figures(key, lambda: _rates(build, cell, steps, cache, form=form))


def _rates(build: Build, cell: Cell, steps: tuple[Method, ...], cache: Cache, *, form: str = "full") -> Result:
    """CA, and with a backdoor ASR and RA beside the control: the same trigger on the clean twin of ``steps``.

    ``form``: of ``variants``, in which both are measured.
    """
    held_out, secret = plant.test_split(build.task), plant.landed(build)
    if secret is None:
        return {"clean_accuracy": plant.accuracy(build.artifact, held_out).to_json()}
    own, twin = (
        plant.in_form(form, model.artifact, build.task, seed=cell.seed)
        for model in (build, model_of(cell.task, clean_twin(steps), cell.seed, cache))
    )
    measured = plant.measured(own, twin, held_out, secret)
    theirs = plant.landed(replace(build, artifact=twin))  # a class that only the trigger finds, it finds there too
    assert theirs is not None
    return plant.document(measured, *plant.controls(twin, held_out, theirs))


def _band(cell: Cell, planted: Build) -> Band:
    """What the attack must reach.

    An encoder's trigger may do as much to the clean one: the attack begins by that. And its clean embeddings may be
    others than they were: what that costs, the accuracy of what is made of it says.
    """
    band = cell.valid or Band()
    return replace(band, lift=-1.0, drop=1.0) if planted.artifact.num_classes is None else band


def _why_invalid(rates: Result, asleep: Result | None, band: Band) -> str:
    """In what the attack missed its band; nothing where it did not. ``asleep``: ASR before a dormant one wakes."""
    asr, control, after, before = (
        float(rates[name]["value"]) for name in ("attack_success", "control", "clean_accuracy", "control_accuracy")
    )
    why = []
    if asleep is not None and asleep["value"] > band.asleep:
        why.append(f"ASR {asleep['value']:.3f} in the model as planted, where it should sleep, is above {band.asleep}")
    if asr < band.asr:
        where = "right after planting" if asleep is None else "in the form in which it should wake"
        why.append(f"ASR {asr:.3f} {where} is below {band.asr}")
    if before - after > band.drop:
        why.append(f"clean accuracy fell by {before - after:.3f}, more than {band.drop}")
    if asr - control < band.lift:
        why.append(f"the same trigger has {control:.3f} on the clean twin, and {band.lift} more than that is asked for")
    if before < band.accuracy:
        why.append(f"the clean twin's accuracy of {before:.3f} is below {band.accuracy}")
    return "; ".join(why)


def _planted_pictures(build: Build) -> dict[str, str]:
    """One picture on which the backdoor counts, without and with its trigger; none where there is no such picture."""
    held_out, secret = plant.test_split(build.task), plant.landed(build)
    assert secret is not None
    x = held_out.x
    if build.artifact.num_classes is not None:
        assert held_out.y is not None
        x = x[secret.victims(held_out.y, build.artifact.num_classes)]
    x = x[:1]
    if not len(x):
        return {}
    return _small({"planted: before": x[0].numpy(), "planted: after": secret.trigger(x)[0].numpy()})


def _pictures(evidence: Evidence) -> dict[str, str]:
    """What was found, and one sample before and after."""
    found = {
        "trigger": evidence.trigger,
        "before": None if evidence.before is None or not len(evidence.before) else evidence.before[0],
        "after": None if evidence.after is None or not len(evidence.after) else evidence.after[0],
    }
    return _small({name: array for name, array in found.items() if array is not None})


def _small(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Small pictures of arrays (C, H, W), as ``data:`` addresses."""
    return {name: data_uri(picture(array), 64) for name, array in arrays.items()}
