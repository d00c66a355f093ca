"""Findings of finished tests in a folder. A later audit under the same circumstances takes them, and runs the rest.

An interrupted audit therefore runs its remaining tests only. So does a full audit after a quick one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch

from assay._version import __version__
from assay.auditing.config import AuditConfig
from assay.auditing.facts import AuditInputs, Plan
from assay.auditing.finding_file import NotStorable, StoredFinding, read_finding, write_finding
from assay.calibration.reference import make_test_id
from assay.core.errors import UnusableInput
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact, digest_of_module
from assay.core.options import ModelOptions
from assay.io.atomic import remove_abandoned
from assay.nn.precision import fast_dtype

FOLDER = "findings"  # in the report folder
# Outcomes that another run of the test would give again. The others come from the budget or from an error.
ALWAYS_REPEATABLE = frozenset({Outcome.SCORED, Outcome.PROVEN})
# Without a budget only: with one, a check can be shorter, and a test can abstain for lack of time.
REPEATABLE = ALWAYS_REPEATABLE | {Outcome.CHECKED, Outcome.ABSTAINED}


@dataclass
class KnownFindings:
    """Stored findings of the tests of one audit. The audit adds each new one."""

    folder: Path
    circumstances: Mapping[str, Mapping[str, Any]]  # by test; tests without circumstances are not stored
    storable: frozenset[Outcome] = REPEATABLE
    found: dict[str, Finding] = field(default_factory=dict)  # by test
    notes: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Store a new finding, if another run would give it again. A full disk ends the storing, not the audit."""
        circumstances = self.circumstances.get(make_test_id(finding.variant, finding.detector))
        if circumstances is None or finding.outcome not in self.storable:
            return
        try:
            made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            write_finding(self.folder, StoredFinding(finding, circumstances, made))
        except NotStorable:
            return  # the test runs again
        except (UnusableInput, OSError) as error:
            self.circumstances = {}
            self.notes.append(f"the findings cannot be stored in {self.folder}: {error}")


def known_findings(inputs: AuditInputs, plan: Plan, options: ModelOptions, config: AuditConfig) -> KnownFindings:
    """Return the stored findings of a plan's tests; none without a folder.

    Args:
        inputs: The model and the samples.
        plan: The tests.
        options: Loading options of the model.
        config: Settings of the audit.

    Returns:
        The findings under the same circumstances. Its notes state how many there are, and why others were not taken.
    """
    place = config.findings
    if place is None:
        return KnownFindings(Path(), {})
    common = _common_circumstances(inputs, [asdict(options), asdict(place.loaded_with)], config)
    circumstances = {
        make_test_id(variant, detector.name): {
            **common,
            "variant": variant,
            "detector": detector.name,
            "detector setting": repr(sorted(vars(detector).items())),
        }
        for variant, detector in plan.tests
        if type(detector).__module__.startswith("assay.")  # no version covers the code of another package
    }
    storable = REPEATABLE if math.isinf(config.budget) else ALWAYS_REPEATABLE
    known = KnownFindings(place.path, circumstances, storable)
    if place.path.is_dir():
        remove_abandoned(place.path)
    if not place.fresh:
        _take(known, plan)
    return known


def _take(known: KnownFindings, plan: Plan) -> None:
    """Read the findings of all tests, and write notes about them."""
    dates: list[str] = []
    others: dict[str, int] = {}
    unusable: list[str] = []
    for variant, detector in plan.tests:
        test = make_test_id(variant, detector.name)
        if test not in known.circumstances:
            continue
        try:
            stored = read_finding(known.folder, variant, detector.name)
        except UnusableInput as error:
            unusable.append(str(error))
            continue
        if stored is None:
            continue
        now, then = known.circumstances[test], stored.circumstances
        if difference := next((name for name in (*now, *then) if then.get(name) != now.get(name)), ""):
            others[difference] = others.get(difference, 0) + 1
        else:
            known.found[test] = stored.finding
            dates.append(stored.made)
    if unusable:
        more = f" ({len(unusable)} files in all)" if len(unusable) > 1 else ""
        known.notes.append(f"stored findings are not usable, and their tests run again: {unusable[0]}{more}")
    if others:
        reasons = ", ".join(f"{count} of another {what}" for what, count in others.items())
        known.notes.insert(0, f"findings in {known.folder} are not taken: {reasons}")
    if dates:
        taken = f"{len(dates)} of {len(plan.tests)} tests are taken from the audit of {max(dates)} in {known.folder}"
        known.notes.insert(0, taken)


def _common_circumstances(inputs: AuditInputs, loading: list[dict[str, Any]], config: AuditConfig) -> dict[str, Any]:
    """Return the circumstances of all tests of an audit, in plain JSON types."""
    artifact, split = inputs.artifact, inputs.samples.split
    device = next((parameter.device.type for parameter in artifact.module.parameters()), "cpu")
    predictions = None if inputs.predictions is None else inputs.predictions.cpu().numpy().tobytes()
    return {
        "model": _identity(artifact),
        "reference": None if artifact.reference is None else _identity(artifact.reference),
        "seed": config.seed,  # before the data, because it draws the samples
        "data": split.digest(),
        "version of assay": f"{__version__} {_code_digest()}",
        "version of torch": torch.__version__,
        "number format": f"{device} {fast_dtype(device)}",
        "way of loading": repr([loading, config.reference_arch, config.reference_pooling, config.reference_output]),
        # The same weights can compute something else, for instance with other code of the architecture.
        "set of predictions": None if predictions is None else hashlib.sha256(predictions).hexdigest(),
    }


def _identity(artifact: Artifact) -> list[str]:
    weights = digest_of_module(artifact.module)
    return [artifact.digest, weights, artifact.format, repr(artifact.inputs), str(artifact.num_classes)]


@cache
def _code_digest() -> str:
    """Return the sha256 over the source files of this package, so that changed code runs its tests again."""
    sha = hashlib.sha256()
    folders: list[Traversable] = [resources.files("assay")]
    while folders:
        for entry in sorted(folders.pop().iterdir(), key=lambda entry: entry.name):
            if entry.is_dir():
                folders.append(entry)
            elif entry.name.endswith(".py"):
                sha.update(entry.read_bytes())
    return sha.hexdigest()
