"""Computation of a cell in a worker process. Results depend on the cell alone, not on earlier work."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from assay.attacks import plant
from assay.bench.cells import Cell, clean_control, steps_to_planting
from assay.bench.guard import run_guarded
from assay.bench.initial import initial_build, resolve_method_paths, resolve_paths
from assay.bench.job import Outcome, key_of
from assay.bench.spec import CONTROL, FULL_AUDIT, Method, TaskSpec, ValidityCriteria
from assay.bench.validity import why_invalid
from assay.core.build import Build, cache_text
from assay.core.dataset import Task
from assay.core.errors import Unreachable, UnusableInput
from assay.core.finding import FULL, Evidence, Finding
from assay.detectors.encoder import cluster_probe
from assay.io.images import data_uri, to_image
from assay.io.object_store import ObjectStore
from assay.registry import all_detectors
from assay.stages.cache import Cache, digest_of_task

Result = dict[str, Any]  # in plain JSON types

THUMBNAIL = 64  # longest side of an image in a record, in pixels


def run(cell: Cell, blobs: str, *, folder: str = "") -> Outcome:
    """Compute ``cell`` with one thread. Exceptions of methods become the state of the outcome.

    Args:
        cell: the computation.
        blobs: place of the models, as fsspec writes it.
        folder: working directory of the driver, for relative paths of the specification.
    """
    steps, repair = (tuple(resolve_method_paths(step, folder) for step in part) for part in (cell.steps, cell.repair))
    resolved = replace(cell, task=resolve_paths(cell.task, folder), steps=steps, repair=repair)
    return run_guarded(lambda: _COMPUTATIONS[cell.kind](resolved, Cache(ObjectStore(blobs))), summarize=_summary)


def _summary(result: Result) -> str:
    """Return the main numbers of a result, for the progress line."""
    if result.get("why_invalid"):
        return str(result["why_invalid"])
    if "score" in result:
        return "abstained" if result["score"] is None else f"score {result['score']:.3g}"
    rates = {"CA": result.get("clean_accuracy"), "ASR": result.get("attack_success")}
    return ", ".join(f"{name} {100 * rate['value']:.1f} %" for name, rate in rates.items() if rate is not None)


def _build(cell: Cell, cache: Cache) -> Result:
    stages_run = 0

    def count() -> None:
        nonlocal stages_run
        stages_run += 1

    build = build_model(cell.task, cell.steps, cell.seed, cache, ran=count)
    return {"digest": build.artifact.digest, "stages_run": stages_run}


def _measure(cell: Cell, cache: Cache) -> Result:
    """Measure the model at the end of the chain, and check the attack right after planting.

    A check at the end would leave out the models without a surviving backdoor. Averages over the rest would show no
    effect of a mitigating step.
    """
    build = build_model(cell.task, cell.steps, cell.seed, cache)
    rates = _cached_rates(build, cell, cell.steps, cache)
    if build.secret is None:
        return rates
    steps = steps_to_planting(cell.steps)
    at_end = steps == cell.steps
    planted_build = build if at_end else build_model(cell.task, steps, cell.seed, cache)
    planted = rates if at_end else _cached_rates(planted_build, cell, steps, cache)
    extra: Result = {}
    if build.secret.active_in is not None:
        extra = {"asleep_success": planted["attack_success"], "asleep_accuracy": planted["clean_accuracy"]}
        planted = _cached_rates(planted_build, cell, steps, cache, variant=build.secret.active_in)
    extra |= {"planted_success": planted["attack_success"], "planted_accuracy": planted["clean_accuracy"]}
    criteria = cell.valid or ValidityCriteria()
    if planted_build.artifact.num_classes is None:
        # An encoder attack starts from a trigger that may act on the clean encoder as much. Its clean embeddings may
        # also change: the accuracy of the downstream models measures that cost.
        criteria = replace(criteria, lift=-1.0, drop=1.0)
    why = why_invalid(planted, extra.get("asleep_success"), criteria)
    return {**rates, **extra, "valid": not why, "why_invalid": why, "pictures": _planted_images(build)}


def _detect(cell: Cell, cache: Cache) -> Result:
    build = build_model(cell.task, cell.steps, cell.seed, cache)
    clean = build.task.split("calibration", "validation").sample(cell.samples, seed=cell.seed)
    artifact, given = build.artifact, cell.task.given
    if artifact.num_classes is None and cell.method != FULL_AUDIT:
        artifact, clean = cluster_probe.probe_encoder(artifact, clean, seed=cell.seed)
    finding = _test(cell.method)(artifact, clean, seed=cell.seed)
    if finding.outcome.status == "failed":
        raise UnusableInput(finding.reason)
    secret = plant.with_resolved_target(build)
    target = secret.target if secret is not None else given.target if given is not None else None
    verdict = finding.evidence.numbers.get("verdict")  # only the full audit gives a verdict
    return {
        "status": finding.outcome.status,
        "reason": "" if finding.proof else finding.reason,
        "score": finding.score,
        "target": finding.target,
        "alarm": verdict == "backdoored" if verdict is not None else None,
        "planted_target": target,
        "backdoored": build.secret is not None or (given is not None and given.attack != CONTROL),
        "numbers": dict(finding.evidence.numbers),
        "pictures": _evidence_images(finding.evidence),
    }


def _test(name: str) -> Callable[..., Finding]:
    if name == FULL_AUDIT:
        from assay.bench.full_audit import run_full_audit

        return run_full_audit
    return next(detector for detector in all_detectors() if detector.name == name)


def _mitigate(cell: Cell, cache: Cache) -> Result:
    build = build_model(cell.task, cell.steps, cell.seed, cache)
    start = time.perf_counter()
    after = apply_mitigation(build, cell.repair, seed=cell.seed)
    seconds = time.perf_counter() - start
    return {**_rates(after, cell, cell.steps, cache), "repair_seconds": seconds}


def apply_mitigation(build: Build, repair: tuple[Method, ...], *, seed: int) -> Build:
    """Return ``build`` after the stages ``repair``. The stages get the calibration split only, like a defender."""
    clean = build.task.split("calibration", "validation")
    task = Task(build.task.name, {"train": clean, "calibration": clean}, build.task.class_names)
    repaired = Build(build.artifact, task)
    for method in repair:
        repaired = method.stage()(repaired, seed=seed)
    return replace(build, artifact=repaired.artifact)


_COMPUTATIONS: Mapping[str, Callable[[Cell, Cache], Result]] = {
    "build": _build,
    "measure": _measure,
    "detect": _detect,
    "mitigate": _mitigate,
}


def build_model(
    spec: TaskSpec, steps: tuple[Method, ...], seed: int, cache: Cache, *, ran: Callable[[], None] = lambda: None
) -> Build:
    """Return the model after ``steps``, each from the cache if possible.

    Args:
        spec: the task with the initial model.
        steps: attacks and stages, in order.
        seed: seed of every step.
        cache: models of earlier steps.
        ran: called for every step without an entry in the cache.

    Raises:
        Unreachable: this machine cannot read the data or the initial model.
    """
    try:
        build, digest = initial_build(spec, seed=seed)
    except UnusableInput as error:  # the driver has read both, so this machine is at fault
        raise Unreachable(f"{socket.gethostname()} cannot read the input of {spec.name}: {error}") from None
    return cache.run_all((method.stage() for method in steps), build, seed=seed, data_digest=digest, on_run=ran)


def _cached_rates(build: Build, cell: Cell, steps: tuple[Method, ...], cache: Cache, *, variant: str = FULL) -> Result:
    """Return ``_rates``, computed once per model: several chains begin with the same planted model."""
    same = Cell("measure", cell.task, steps, cell.seed).key
    key = key_of([same, variant, build.artifact.digest, cache_text(build.secret), digest_of_task(build.task)])
    return cache.json_once(key, lambda: _rates(build, cell, steps, cache, variant=variant))


def _rates(build: Build, cell: Cell, steps: tuple[Method, ...], cache: Cache, *, variant: str = FULL) -> Result:
    """Return the clean accuracy, and for a backdoored model ASR, robust accuracy and their controls.

    A control is the same trigger on the clean control of ``steps``. Both models are measured as ``variant``.
    """
    held_out, secret = plant.held_out_split(build.task), plant.with_resolved_target(build)
    if secret is None:
        return {"clean_accuracy": plant.accuracy(build.artifact, held_out).to_json()}
    own, control = (
        plant.make_variant(variant, model.artifact, build.task, seed=cell.seed)
        for model in (build, build_model(cell.task, clean_control(steps), cell.seed, cache))
    )
    measured = plant.measure_backdoor(own, control, held_out, secret)
    # The target class of an encoder attack may follow from the trigger alone: it is resolved for each model.
    control_secret = plant.with_resolved_target(replace(build, artifact=control))
    assert control_secret is not None
    return plant.metrics_document(measured, *plant.measure_control(control, held_out, control_secret))


def _planted_images(build: Build) -> dict[str, str]:
    """Return one image that counts for ASR, without and with the trigger; nothing without such an image."""
    held_out, secret = plant.held_out_split(build.task), plant.with_resolved_target(build)
    assert secret is not None
    x = held_out.x
    if build.artifact.num_classes is not None:
        assert held_out.y is not None
        x = x[secret.victims(held_out.y, build.artifact.num_classes)]
    x = x[:1]
    if not len(x):
        return {}
    return _thumbnails({"planted: before": x[0].numpy(), "planted: after": secret.trigger(x)[0].numpy()})


def _evidence_images(evidence: Evidence) -> dict[str, str]:
    """Return the found trigger, and one sample before and after it."""
    first = {name: getattr(evidence, name) for name in ("before", "after")}
    images = {"trigger": evidence.trigger}
    images |= {name: None if batch is None or not len(batch) else batch[0] for name, batch in first.items()}
    return _thumbnails({name: array for name, array in images.items() if array is not None})


def _thumbnails(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Return small images of arrays (C, H, W), as ``data:`` addresses."""
    return {name: data_uri(to_image(array), THUMBNAIL) for name, array in arrays.items()}
