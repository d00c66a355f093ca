"""Audits as jobs of the bench: many models, on the cores of one machine or on a cluster, each audited once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from assay._version import __version__
from assay.batch.collection import model_digest
from assay.bench import driver
from assay.bench.executors import Executor, Work
from assay.bench.guard import run_guarded
from assay.bench.job import Outcome, key_of
from assay.bench.records import Record, Records
from assay.bench.store import Store
from assay.calibration.file import digest_of_shipped
from assay.core.errors import UnusableInput, foreign_errors
from assay.core.options import ModelOptions
from assay.core.result import Audit
from assay.io.object_store import ObjectStore
from assay.report.bundle import report_files

if TYPE_CHECKING:
    from assay.auditing.config import AuditConfig

NEEDS_ARCH = ".safetensors"  # the only format without a description of the architecture
REPORTS = "reports"  # folder of a store for reports, if no other place is given


@dataclass(frozen=True)
class AuditSettings:
    """Settings of every audit of a batch, as for ``assay.audit``, in plain types."""

    data: str | None = None
    arch: str | None = None
    shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    features: bool = False
    pooling: str | None = None
    output: str | None = None
    labels: bool = True
    label_column: str | None = None
    variants: tuple[str, ...] = ()
    detectors: str | None = None
    budget: float | None = None
    null: str | None = None
    seed: int = 0
    quick: bool = False

    @classmethod
    def of(cls, data: str | None, options: ModelOptions, config: AuditConfig) -> AuditSettings:
        """Return the settings of a batch.

        Args:
            data: Source of the clean samples.
            options: Options of every model.
            config: Settings of every audit: detectors as text, a null distribution as path, and no reference.
        """
        assert config.detectors is None or isinstance(config.detectors, str)
        assert config.null is None or isinstance(config.null, str)
        return cls(
            data,
            **options.as_keywords(),
            labels=config.labels,
            label_column=config.label_column,
            variants=config.variants,
            detectors=config.detectors,
            budget=config.budget if math.isfinite(config.budget) else None,
            null=config.null,
            seed=config.seed,
            quick=config.quick,
        )

    def model_options(self) -> ModelOptions:
        """Return the options of every model."""
        return ModelOptions(self.arch, self.shape, self.mean, self.std, self.features, self.pooling, self.output)

    def audit_config(self) -> AuditConfig:
        """Return the settings of every audit."""
        from assay.auditing.config import AuditConfig

        budget = math.inf if self.budget is None else self.budget
        return AuditConfig(
            self.variants,
            self.detectors,
            self.labels,
            budget,
            null=self.null,
            seed=self.seed,
            label_column=self.label_column,
            quick=self.quick,
        )


@dataclass(frozen=True)
class AuditJob:
    """One audit: a pure function of the model's digest, the settings, and the content of the data and the null."""

    kind: ClassVar[str] = "audit"

    model: str  # path or hub id; not part of the key
    digest: str
    settings: AuditSettings
    files: str  # digest of the data and the null distribution, see ``_input_digest``

    @cached_property
    def key(self) -> str:
        """sha256 of all inputs of the result."""
        return key_of([__version__, torch.__version__, self.digest, asdict(self.settings), self.files])

    def needs(self) -> Sequence[AuditJob]:
        """Return no jobs: audits are independent of each other."""
        return ()

    def about(self) -> dict[str, Any]:
        """Return the fields in plain JSON types."""
        return {**asdict(self), "method": ""}

    def __str__(self) -> str:
        return f"audit of {self.model}"


@dataclass(frozen=True)
class AuditedModel:
    """One model of a batch, and the record of its audit."""

    model: str
    digest: str
    record: Record | None  # None: the model could not be read
    error: str = ""
    before: bool = False  # True: audited by an earlier run

    @property
    def result(self) -> Mapping[str, Any]:
        """The summary of the audit; empty if it failed."""
        return (self.record.result if self.record else None) or {}

    @property
    def verdict(self) -> str:
        """``clean``, ``backdoored``, ``inconclusive``, or ``failed``."""
        return str(self.result.get("verdict", "failed"))

    @property
    def reason(self) -> str:
        """The reason for the verdict, or the error."""
        return str(self.result.get("reason") or self.error or (self.record.error if self.record else "") or "")


@dataclass(frozen=True)
class BatchStorage:
    """Places of the records and reports of a batch."""

    store: Store
    reports: str | None = None  # as fsspec writes it; None: a folder of the store
    earlier: Records | None = None  # records of an earlier run, whose models are not audited again


def run(
    models: Sequence[str],
    settings: AuditSettings,
    storage: BatchStorage,
    executor: Executor,
    *,
    work: Work | None = None,
    progress: Callable[[driver.RunProgress], None] = lambda now: None,
) -> list[AuditedModel]:
    """Audit every model that has no result for these settings yet.

    An unreadable model becomes a failed entry, and the others continue. Failed models are tried again.

    Args:
        models: paths and hub ids.
        settings: settings of all audits.
        storage: the records. Models in ``storage.earlier`` are skipped, even if their settings were different.
        executor: runs the audits.
        work: computes one audit; None: in the worker itself.
        progress: called after each model.

    Returns:
        One entry for each of ``models``, in their order.
    """
    known = _last_records(storage.earlier) if storage.earlier is not None else {}
    files = _input_digest(settings)
    digests, unreadable = _digests(models, progress)
    new = {model: AuditJob(model, digest, settings, files) for model, digest in digests.items() if digest not in known}
    jobs = {job.key: job for job in new.values()}
    store = storage.store
    store.requeue_failed(jobs)  # the cause may be gone
    place = storage.reports or str((store.directory / REPORTS).absolute())
    driver.run(jobs, store, executor, blobs=place, work=work or run_job, progress=progress)
    audited = []
    for model in models:
        if model in unreadable:
            audited.append(AuditedModel(model, "", None, unreadable[model]))
        elif model in new:
            audited.append(AuditedModel(model, digests[model], store.record(new[model].key)))
        else:
            audited.append(AuditedModel(model, digests[model], known[digests[model]], before=True))
    return audited


def _digests(
    models: Sequence[str], progress: Callable[[driver.RunProgress], None]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests of the readable models, and the errors of the others, by model."""
    digests: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter's lock
        futures = {model: pool.submit(model_digest, model) for model in models}
        for number, (model, future) in enumerate(futures.items(), start=1):
            try:
                with foreign_errors(model):
                    digests[model] = future.result()
            except UnusableInput as error:
                unreadable[model] = str(error)
            progress(driver.RunProgress(0, len(models), f"{number} of them read", {}))
    return digests, unreadable


def run_job(job: AuditJob, reports: str) -> Outcome:
    """Audit one model with one thread, and write its report.

    Args:
        job: the audit.
        reports: place of the reports; this one goes below the job's key.
    """

    def compute() -> dict[str, Any]:
        audit = _audit(job)
        files = report_files(audit)
        for name, content in files.items():
            ObjectStore(reports).put(f"{job.key}/{name}", content)
        return {**summary(audit), "files": sorted(files)}

    return run_guarded(compute, summarize=lambda result: str(result["verdict"]))


def summary(audit: Audit) -> dict[str, Any]:
    """Return the fields of an audit for a table of many."""
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


def fetch_reports(audited: Sequence[AuditedModel], reports: ObjectStore, directory: Path) -> None:
    """Copy the reports of this run from an object store into ``directory``/reports.

    Args:
        audited: the models of the run.
        reports: place of the reports of the workers.
        directory: folder of the page.
    """
    for entry in audited:
        if entry.record is None or entry.before:
            continue
        for name in entry.result.get("files", ()):
            target = directory / REPORTS / entry.record.key / name
            if not target.exists():
                content = reports.local_path(f"{entry.record.key}/{name}").read_bytes()
                ObjectStore(str(target.parent)).put(target.name, content)


def _audit(job: AuditJob) -> Audit:
    from assay.auditing import run  # imports every detector; the driver does without

    options = job.settings.model_options()
    if not job.model.lower().endswith(NEEDS_ARCH):
        options = replace(options, arch=None)
    return run.run_audit(job.model, job.settings.data, options, job.settings.audit_config())


def _last_records(store: Records) -> dict[str, Record]:
    """Return the last finished audit of every digest."""
    return {
        str(record.about.get("digest")): record
        for record in store.records()
        if record.kind == AuditJob.kind and record.state == "done"
    }


def _input_digest(settings: AuditSettings) -> str:
    """Return a digest of the data and the null distribution.

    Data count by names, sizes and modification times of their files: large data sets would take too long to hash.
    """
    parts: list[str] = []
    if settings.data is not None and (path := Path(settings.data)).exists():
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        parts += [f"{file.relative_to(path)} {(s := file.stat()).st_size} {s.st_mtime_ns}" for file in files]
    if settings.null is None:
        parts += [digest_of_shipped(encoders=encoders) for encoders in (False, True)]
    elif (null := Path(settings.null)).is_file():
        parts.append(hashlib.sha256(null.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
