"""Audits of a batch, each in a process of its own: a model that crashes, hangs or eats memory fails alone."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from assay.batch.audits import AuditJob, run_job
from assay.bench.job import Outcome
from assay.sandbox.jobs import JobDied, run_in_box
from assay.sandbox.limits import Limits

PRELOAD = ("assay.batch.preload",)  # once a worker


@dataclass(frozen=True)
class BoxedAudit:
    """Work of the driver: one audit in a box."""

    limits: Limits = field(default_factory=Limits)

    def __call__(self, job: AuditJob, reports: str) -> Outcome:
        """Audit one model and write its report.

        Args:
            job: The audit.
            reports: Place of the reports.
        """
        start = time.perf_counter()
        name = f"the audit of {job.model}"
        try:
            document = run_in_box(_audit, (job, reports), name=name, limits=self.limits, preload=PRELOAD)
        except JobDied as error:
            place = f"{socket.gethostname()}:{os.getpid()}"
            return Outcome("failed", None, str(error), time.perf_counter() - start, place)
        return Outcome(**document)


def _audit(job: AuditJob, reports: str) -> dict[str, Any]:
    return asdict(run_job(job, reports))
