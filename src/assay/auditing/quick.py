"""Quick audit: part of the full audit, on the model as given only."""

from __future__ import annotations

from assay.auditing.facts import AuditInputs, Plan
from assay.calibration.reference import make_test_id
from assay.core.finding import FULL, Finding
from assay.core.result import QuickScope
from assay.detectors import quick_detectors


def quick_part(full: Plan, inputs: AuditInputs) -> Plan:
    """Return the tests of a quick audit, in the order of the full audit.

    Args:
        full: Plan of the full audit.
        inputs: The model.
    """
    classes = None if inputs.is_encoder else inputs.artifact.num_classes
    names = {detector.name for detector in quick_detectors(classes)}
    tests = tuple((name, detector) for name, detector in full.tests if name == FULL and detector.name in names)
    return Plan((FULL,), tests)


def quick_scope(full: Plan, findings: tuple[Finding, ...]) -> QuickScope:
    """Return the completed tests of a quick audit, and those that it left out.

    Args:
        full: Plan of the full audit.
        findings: Findings of the quick audit.
    """
    completed = {make_test_id(finding.variant, finding.detector) for finding in findings if finding.outcome.completed}
    tests = [make_test_id(name, detector.name) for name, detector in full.tests]
    return QuickScope(
        tuple(test for test in tests if test in completed), tuple(test for test in tests if test not in completed)
    )


def left_out_in_words(scope: QuickScope) -> str:
    """Return the tests that a quick audit left out, as words: detectors on the model as given, then variants."""
    on_full = [test.removeprefix(f"{FULL}/") for test in scope.left_out if test.startswith(f"{FULL}/")]
    variants = dict.fromkeys(test.partition("/")[0] for test in scope.left_out if not test.startswith(f"{FULL}/"))
    parts = [f"{', '.join(on_full)} on the model as given"] if on_full else []
    parts += [f"the variants {', '.join(variants)}"] if variants else []
    return "; ".join(parts)
