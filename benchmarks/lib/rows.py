"""What the benchmark scripts share: paths, where a result comes from, figures with intervals."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from assay import formats
from assay._version import __version__
from assay.auditing.api import audit
from assay.auditing.facts import Preconditions
from assay.auditing.inputs import clean_samples
from assay.auditing.plan import is_default_test
from assay.auditing.verdict import decide
from assay.bench import statistics
from assay.calibration.data_profile import data_profile
from assay.calibration.file import load_shipped
from assay.calibration.matching import match
from assay.calibration.null import NullDistribution
from assay.calibration.reference import detector_of
from assay.core.dataset import Task
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact
from assay.core.result import VariantOutcome, VariantResult
from assay.detectors import default_detectors

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ASSAY_SHARED", ROOT.parent / "shared"))
RESULTS = ROOT / "benchmarks" / "results"


def cifar_resnet(name: str, *, features: bool = False) -> Artifact:
    """``resnet20`` and the like, with weights for CIFAR-10 that others published; ``features``: cut at them."""
    path = SHARED / f"models/{name}-cifar10/model.safetensors"
    return formats.load(path, arch=f"{name}-cifar", features=features)


def origin() -> dict[str, object]:
    """Where and when a result was made."""
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpu if line.startswith("model name")), "?")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": date.today().isoformat(),
        "machine": f"{model}, {os.cpu_count()} cores, {gpu}",
        "assay": __version__,
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": " ".join(sys.argv),
    }


def save(name: str, result: dict[str, object]) -> None:
    """Write ``benchmarks/results/<name>.json`` with its origin."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"origin": origin(), **result}, indent=1) + "\n")
    print(f"-> benchmarks/results/{name}.json")


def kept(name: str) -> dict[str, dict]:
    """The models in ``benchmarks/results/<name>.json``: a table grows over many sessions, and nothing is run twice."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["models"] if path.exists() else {}


def audited(artifact: Artifact, task: Task, *, seed: int = 0) -> dict[str, object]:
    """One audit as a compact row: the verdict, what found it, every score."""
    result = audit(artifact, task, seed=seed)
    return {
        "verdict": result.verdict,
        "p_value": result.p_value,
        "statistic": result.statistic,
        "target_found": result.target,
        "seconds": round(result.seconds, 1),
        "samples": result.data_samples,
        "classes": result.model.num_classes,
        "data": data_profile(clean_samples(task, artifact, seed=seed).split.x),
        "variants": {v.name: v.reason or v.accuracy for v in result.variants},
        "findings": {f"{f.variant}/{f.detector}": [f.score, f.p_value, f.target] for f in result.findings},
    }


def judged(row: dict) -> dict:
    """``row`` with its verdict made anew from its scores on the tests that an audit runs now, against today's null."""
    return against(load_shipped(), row | {"findings": {t: f for t, f in row["findings"].items() if runs_now(t)}})


def against(null: NullDistribution | None, row: dict) -> dict:
    """``row`` with its verdict made anew from its scores, against ``null``."""
    findings = tuple(
        Finding(
            detector_of(test),
            Outcome.ABSTAINED if score is None else Outcome.SCORED,
            test.rpartition("/")[0],
            score=score,
            target=target,
        )
        for test, (score, _, target) in row["findings"].items()
    )
    forms = tuple(
        _left_out(name, value) if isinstance(value, str) else VariantResult(name, "", value)
        for name, value in row["variants"].items()
    )
    accuracy = next(form.accuracy for form in forms if form.name == "full")
    preconditions = Preconditions(row["samples"], row["classes"], accuracy=accuracy)
    compared_with = None if null is None else match(null, accuracy, row["data"])
    verdict, null = decide(findings, forms, compared_with, preconditions)
    p_values = {
        test: [score, null.p_value(test, score) if null and score is not None else None, target]
        for test, (score, _, target) in row["findings"].items()
    }
    new = {"verdict": verdict.word, "p_value": verdict.p_value, "statistic": verdict.statistic}
    return {**row, **new, "target_found": verdict.target, "findings": p_values}


def _left_out(name: str, reason: str) -> VariantResult:
    outcome = VariantOutcome.BROKEN if "compression broke" in reason else VariantOutcome.UNAVAILABLE
    return VariantResult(name, "", None, outcome=outcome, reason=reason)


def runs_now(test: str) -> bool:
    """Whether an audit runs it by default."""
    form, detectors = test.rpartition("/")[0], default_detectors()
    return any(is_default_test(form, detector) for detector in detectors if detector.name == detector_of(test))


def decided(row: dict) -> bool:
    """Whether the audit gave an answer: statistics of models without one come from other reference models."""
    return row["verdict"] != "inconclusive"


def auc(positive: Sequence[float], negative: Sequence[float]) -> dict[str, float] | None:
    """Area under the ROC curve with a 95 % interval over models (Newcombe's); None without models of both kinds."""
    figure = statistics.auc(positive, negative)
    return None if figure is None else {"auc": figure.value, "low": figure.low, "high": figure.high}
