"""Demonstration on one page: train a model, plant a backdoor in a copy, compress it and audit both. Works offline."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from assay import data, formats, report
from assay.attacks import BadNets
from assay.attacks.plant import held_out_split
from assay.auditing.api import audit
from assay.calibration.null import NullDistribution
from assay.core.build import Build
from assay.core.errors import AssayError
from assay.core.finding import FULL
from assay.core.progress import Step, named, part
from assay.core.result import Audit
from assay.detectors import Detector
from assay.formats.untrained import inputs_of, untrained_model
from assay.io.atomic import publish
from assay.io.templates import template_environment
from assay.nn import metrics
from assay.nn.metrics import BackdoorMetrics
from assay.report.formatting import format_percent
from assay.report.page import TEMPLATES
from assay.report.view import page_of
from assay.sandbox.processes import available_cores, sendable_error
from assay.stages.base import Stage
from assay.stages.prune import PruneMagnitude
from assay.stages.quantize import QuantizeInt8
from assay.stages.train import Recipe, Train
from assay.triggers import Patch

ARCH = "resnet8-cifar"
INDEX = "index.html"
COMPRESSIONS: Mapping[str, Stage] = {"prune-50": PruneMagnitude(rate=0.5), "int8": QuantizeInt8()}  # by variant
BADNETS = BadNets(target=3, patch=Patch(size=4, color="checker"), recipe=Recipe(epochs=5))
AUDITED = ("clean", "backdoored")
AUDITS_BEGIN = 0.32  # completed fraction of the demo before the audits

EXIT_SECONDS = 10  # for a process to end by itself after its audit


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo. The defaults take about 90 seconds on two cores with bfloat16 units."""

    classes: int = 10
    samples: int | None = None  # maximum per split; None: all signs
    training: Recipe = Recipe(epochs=3)  # noqa: RUF009 (frozen)
    attack: BadNets = BADNETS
    variants: tuple[str, ...] = (FULL, *COMPRESSIONS)
    detectors: tuple[Detector, ...] | None = None  # None: the default detectors
    null: NullDistribution | None = None  # None: the null distribution of the package
    processes: int | None = None  # for the two audits; None: one per available core
    seed: int = 0


@dataclass(frozen=True)
class Demo:
    """Result of the demo."""

    measured: Mapping[str, BackdoorMetrics]  # by model; "clean" is the control: no backdoor, the same trigger
    audits: Mapping[str, Audit]  # "clean" and "backdoored"
    index: Path  # the page with both reports


def demo(directory: Path, config: DemoConfig, *, progress: Step = lambda name, fraction: None) -> Demo:
    """Train a model on signs, plant BadNets, prune, quantize, audit the clean and the backdoored model, write pages.

    The two audits run in two processes with one thread each if there are two cores. The results do not depend on that.

    Args:
        directory: Folder for the models and pages.
        config: Settings.
        progress: Callback for each step and the completed fraction.

    Returns:
        The measurements, the audits and the path of the page.

    Raises:
        UnusableInput: The folder cannot be written to.
    """
    processes = config.processes or available_cores()
    # The processes start first: their imports run on the second core during the training.
    with _audit_processes(AUDITED if processes >= len(AUDITED) else ()) as connections:
        return _demo(directory, config, connections, progress)


def _demo(directory: Path, config: DemoConfig, connections: Mapping[Connection, str], progress: Step) -> Demo:
    seed = config.seed
    progress("drawing traffic signs", 0.0)
    task = data.load(f"signs:{config.classes}", inputs_of(ARCH), limit=config.samples, seed=seed)
    start = untrained_model(ARCH, config.classes, class_names=task.class_names, seed=seed)

    training = part(named(progress, "training a clean model"), 0.02, 0.12)
    clean = Train(recipe=config.training)(Build(start, task), seed=seed, progress=training)
    planting = part(named(progress, "planting a backdoor in a copy"), 0.12, 0.28)
    backdoored = config.attack(clean, seed=seed, progress=planting)

    progress("pruning and quantizing the copy", 0.28)
    builds = dict(zip(AUDITED, (clean, backdoored), strict=True))
    compressed = {f"backdoored, {name}": stage(backdoored, seed=seed) for name, stage in COMPRESSIONS.items()}
    secret = config.attack.secret()
    measured = {
        name: metrics.measure(build.artifact.module, held_out_split(task), secret, num_classes=config.classes)
        for name, build in (builds | compressed).items()
    }

    def audit_progress(name: str, done: float) -> None:
        progress(name, AUDITS_BEGIN + (1 - AUDITS_BEGIN) * done)

    if connections:
        audits = _audits_in_processes(connections, builds, config, audit_progress)
    else:
        audits = _audits_in_sequence(builds, config, audit_progress)
    return Demo(measured, audits, _write(directory, measured, audits, builds))


def _audits_in_sequence(builds: Mapping[str, Build], config: DemoConfig, progress: Step) -> dict[str, Audit]:
    def step_of(index: int) -> Step:
        return lambda step, fraction: progress(step, (index + fraction) / len(builds))

    return {name: _audit(name, build, config, step_of(index)) for index, (name, build) in enumerate(builds.items())}


@contextmanager
def _audit_processes(names: Sequence[str]) -> Iterator[dict[Connection, str]]:
    """Start one process per audit. The processes end with this block, also after an error or Ctrl-C."""
    context = multiprocessing.get_context("spawn")
    connections: dict[Connection, str] = {}
    processes = []
    try:
        with _blocked_interrupts():  # the processes inherit it: Ctrl-C reaches this process only, which ends them
            for name in names:
                own_end, other_end = context.Pipe()
                process = context.Process(target=_audit_process, args=(other_end,), daemon=True)
                process.start()
                processes.append(process)
                other_end.close()  # so that the death of the process closes the pipe
                connections[own_end] = name
        yield connections
        for process in processes:
            process.join(EXIT_SECONDS)  # a terminated process would leave its semaphores behind
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _audits_in_processes(
    connections: Mapping[Connection, str], builds: Mapping[str, Build], config: DemoConfig, progress: Step
) -> dict[str, Audit]:
    for connection, name in connections.items():
        _send(connection, (name, builds[name], config))
    audits = _receive_audits(connections, progress)
    return {name: audits[name] for name in builds}


def _receive_audits(connections: Mapping[Connection, str], progress: Step) -> dict[str, Audit]:
    fractions = dict.fromkeys(connections.values(), 0.0)
    audits: dict[str, Audit] = {}
    while len(audits) < len(connections):
        for connection in wait([other for other, name in connections.items() if name not in audits]):
            assert isinstance(connection, Connection)
            name = connections[connection]
            try:
                message = _receive(connection)
            except (EOFError, OSError) as error:
                raise AssayError(
                    f"the process of the audit of the {name} model ended early (out of memory?)"
                ) from error
            if isinstance(message, Exception):
                raise message
            if isinstance(message, Audit):
                audits[name] = message
                continue
            step, fractions[name] = message
            progress(step, sum(fractions.values()) / len(fractions))
    return audits


def _audit_process(connection: Connection) -> None:
    """Receive a model, send the progress of its audit, and at last the audit or an exception."""
    torch.set_num_threads(1)
    name, build, config = _receive(connection)
    try:
        _send(connection, _audit(name, build, config, lambda step, fraction: _send(connection, (step, fraction))))
    except BrokenPipeError:  # the main process ended
        return
    except Exception as error:
        _send(connection, sendable_error(error))


def _receive(connection: Connection) -> Any:
    # Only messages of the demo's own processes: no data of a model's author is unpickled.
    return pickle.loads(connection.recv_bytes())


def _send(connection: Connection, value: object) -> None:
    # Not Connection.send: it puts tensors into shared memory, of which containers often have too little.
    connection.send_bytes(pickle.dumps(value))


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _audit(name: str, build: Build, config: DemoConfig, progress: Step) -> Audit:
    result = audit(
        replace(build.artifact, name=f"the demo's {name} model"),
        build.task,
        variant_names=config.variants,
        detectors=config.detectors,
        null=config.null,
        seed=config.seed,
        progress=lambda step, fraction: progress(f"auditing the {name} model, {step}", fraction),
    )
    # A function of the trigger cannot be sent between processes, and no report contains it.
    findings = (replace(finding, evidence=replace(finding.evidence, apply=None)) for finding in result.findings)
    return replace(result, findings=tuple(findings))


def _write(
    directory: Path, measured: Mapping[str, BackdoorMetrics], audits: Mapping[str, Audit], builds: Mapping[str, Build]
) -> Path:
    """Write the models, a report of each audit, and the page with both reports. Return the path of that page."""
    page = (
        template_environment(TEMPLATES)
        .get_template("demo.html.j2")
        .render(
            pages={name: page_of(result) for name, result in audits.items()},
            rows=list(measured.items()),
            percent=format_percent,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, result in audits.items():
            report.write(result, Path(folder) / name)
            formats.save(builds[name].artifact, Path(folder) / name)
        (Path(folder) / INDEX).write_text(page, encoding="utf-8")
        files = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    return publish(directory, files)[INDEX]
