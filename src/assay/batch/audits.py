"""Audits as jobs of the bench's engine: many models, on one machine's cores or a cluster, and no model twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from assay._version import __version__
from assay.auditing import api
from assay.batch.collection import digest_of
from assay.bench import driver
from assay.bench.executors import Executor
from assay.bench.guard import run_guarded
from assay.bench.job import Outcome, key_of
from assay.bench.records import Record, Records
from assay.bench.store import Store
from assay.calibration.file import digest_of_shipped
from assay.core.errors import UnusableInput
from assay.core.result import Audit
from assay.io.object_store import ObjectStore
from assay.report.bundle import report_files

BARE = ".safetensors"

REPORTS = "reports"
"""The folder of a store in which the reports are kept, where no other place is given."""


@dataclass(frozen=True)
class Settings:
    """How every model is audited; as ``assay.audit`` takes it, in plain types."""

    data: str | None = None
    arch: str | None = None
    shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    features: bool = False
    pooling: str | None = None
    labels: bool = True
    variants: tuple[str, ...] = ()
    detectors: str | None = None
    budget: float | None = None
    null: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class AuditJob:
    """One audit: a pure function of the model's digest, the settings, and what the files named there hold."""

    kind: ClassVar[str] = "audit"

    model: str  # where it is; not part of the key
    digest: str
    settings: Settings
    files: str  # what the data and the null are, see ``state_of``

    @cached_property
    def key(self) -> str:
        return key_of([__version__, torch.__version__, self.digest, asdict(self.settings), self.files])

    def needs(self) -> Sequence[AuditJob]:
        return ()

    def about(self) -> dict[str, Any]:
        return {**asdict(self), "method": ""}

    def __str__(self) -> str:
        return f"audit of {self.model}"


@dataclass(frozen=True)
class Audited:
    """One model of the list and what became of it."""

    model: str
    digest: str
    record: Record | None  # None: it could not be read
    error: str = ""
    before: bool = False  # an earlier run's answer

    @property
    def result(self) -> Mapping[str, Any]:
        return (self.record.result if self.record else None) or {}

    @property
    def verdict(self) -> str:
        """``clean``, ``backdoored``, ``inconclusive``, or ``failed``."""
        return str(self.result.get("verdict", "failed"))

    @property
    def reason(self) -> str:
        return str(self.result.get("reason") or self.error or (self.record.error if self.record else "") or "")


def run(
    models: Sequence[str],
    settings: Settings,
    store: Store,
    executor: Executor,
    *,
    blobs: str | None = None,
    since: Records | None = None,
    progress: Callable[[driver.RunProgress], None] = lambda now: None,
) -> list[Audited]:
    """Audit every model that has not been audited in the same way; the answers in the order of ``models``.

    ``since``: models that any run of that store has an answer on are not audited again, however that was made.
    A model that cannot be read or audited is an answer too, and stops no other.
    """
    known = _answers(since) if since is not None else {}
    files = _state(settings)
    digests, unreadable = _digests(models, progress)
    new = {model: AuditJob(model, digest, settings, files) for model, digest in digests.items() if digest not in known}
    jobs = {job.key: job for job in new.values()}
    store.again(jobs)  # what failed may be mended by now
    place = blobs or str((store.directory / REPORTS).absolute())
    driver.run(jobs, store, executor, blobs=place, work=work, progress=progress)
    return [
        Audited(model, "", None, unreadable[model])
        if model in unreadable
        else Audited(model, digests[model], store.record(new[model].key))
        if model in new
        else Audited(model, digests[model], known[digests[model]], before=True)
        for model in models
    ]


def _digests(
    models: Sequence[str], progress: Callable[[driver.RunProgress], None]
) -> tuple[dict[str, str], dict[str, str]]:
    """The digests of the models, and of those that cannot be read the reasons."""
    digests: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:  # hashing and reading let go of the interpreter's lock
        tried = {model: pool.submit(digest_of, model) for model in models}
        for number, (model, answer) in enumerate(tried.items(), start=1):
            try:
                digests[model] = answer.result()
            except UnusableInput as error:
                unreadable[model] = str(error)
            progress(driver.RunProgress(0, len(models), f"{number} of them read", {}))
    return digests, unreadable


def work(job: AuditJob, blobs: str) -> Outcome:
    """Audit one model with one thread; its report is kept at ``blobs`` below the job's key."""

    def compute() -> dict[str, Any]:
        audit = _audit(job)
        content = report_files(audit)
        for name, text in content.items():
            ObjectStore(blobs).put(f"{job.key}/{name}", text)
        return {**summary(audit), "files": sorted(content)}

    return run_guarded(compute, say=lambda result: str(result["verdict"]))


def summary(audit: Audit) -> dict[str, Any]:
    """What a table of many audits says of one."""
    names = audit.model.class_names
    return {
        "verdict": audit.verdict,
        "reason": audit.reason,
        "p_value": audit.p_value,
        "target": audit.target,
        "target_name": names[audit.target] if names and audit.target is not None else None,
        "strongest": audit.strongest,
        "classes": audit.model.num_classes,
        "format": audit.model.format,
        "planted": audit.model.planted,
        "accuracy": audit.accuracy,
        "seconds": audit.seconds,
    }


def fetched(answers: Sequence[Audited], blobs: ObjectStore, directory: Path) -> None:
    """Bring the reports that a cluster wrote elsewhere into ``directory``/reports."""
    for answer in answers:
        if answer.record is None or answer.before:
            continue
        for name in answer.result.get("files", ()):
            target = directory / REPORTS / answer.record.key / name
            if not target.exists():
                ObjectStore(str(target.parent)).put(target.name, blobs.local_path(f"{answer.record.key}/{name}").read_bytes())


def _audit(job: AuditJob) -> Audit:
    settings = job.settings
    return api.audit(
        job.model,
        settings.data,
        arch=settings.arch if job.model.lower().endswith(BARE) else None,  # the other formats bring their own
        shape=settings.shape,
        mean=settings.mean,
        std=settings.std,
        features=settings.features,
        pooling=settings.pooling,
        labels=settings.labels,
        variant_names=settings.variants,
        detectors=settings.detectors,
        budget=float("inf") if settings.budget is None else settings.budget,
        null=settings.null,
        seed=settings.seed,
    )


def _answers(store: Records) -> dict[str, Record]:
    """The last answer on every digest."""
    return {
        str(record.about.get("digest")): record
        for record in store.records()
        if record.kind == AuditJob.kind and record.state == "done"
    }


def _state(settings: Settings) -> str:
    """What the data and the reference models are now: names, sizes and times of files, the bytes of the null.

    A stranger's data set is too large to be hashed for every run; one that was written to is another.
    """
    parts: list[str] = []
    if settings.data is not None and (path := Path(settings.data)).exists():
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        parts += [f"{file.relative_to(path)} {(s := file.stat()).st_size} {s.st_mtime_ns}" for file in found]
    if settings.null is None:
        parts += [digest_of_shipped(encoders=encoders) for encoders in (False, True)]
    elif (null := Path(settings.null)).is_file():
        parts.append(hashlib.sha256(null.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
