"""Which test looks at which form of a model."""

from __future__ import annotations

from dataclasses import dataclass

from assay.calibration.null import NullDistribution
from assay.calibration.reference import make_test_id
from assay.core.model import Artifact
from assay.detectors.base import Detector
from assay.detectors.requirement import Requirement
from assay.stages import variants


@dataclass(frozen=True)
class Plan:
    """The forms to be made, and the tests on each in the order in which they run."""

    forms: tuple[str, ...]
    tests: tuple[tuple[str, Detector], ...]  # a form and what looks at it

    def on(self, form: str) -> tuple[Detector, ...]:
        """The tests on one form."""
        return tuple(detector for name, detector in self.tests if name == form)


def plan_of(given: Artifact, forms: tuple[str, ...], detectors: tuple[Detector, ...]) -> Plan:
    """All that can be looked at: some tests are for the model as given, some for a form beside the full model."""

    def applies(form: str, detector: Detector) -> bool:
        if form == "full":
            return not _is_beside(detector) or given.reference is not None
        return detector.on_variants

    return Plan(forms, tuple((form, test) for form in forms for test in detectors if applies(form, test)))


def usual(plan: Plan, null: NullDistribution | None) -> Plan:
    """What of it is worth its time where nobody chose the tests.

    Those beside the full model take a while, and are left out where the models of ``null``, those that this one will be
    compared with, have no scores on them.
    """
    default = plan.forms == variants.DEFAULT

    def worth(form: str, detector: Detector) -> bool:
        if _is_beside(detector) and form != "full":
            return not null or (null.covers(detector.name) and len(null.scores(make_test_id(form, detector.name))) > 0)
        return not default or looks_at(form, detector)

    tests = tuple((form, detector) for form, detector in plan.tests if worth(form, detector))
    idle = variants.BESIDE - {form for form, _ in tests} if default else frozenset()
    return Plan(tuple(form for form in plan.forms if form not in idle), tests)


def looks_at(form: str, detector: Detector) -> bool:
    """Whether an audit of the usual forms looks at this one so: some are there for tests beside the full model only."""
    return _is_beside(detector) or form not in variants.BESIDE


def _is_beside(detector: Detector) -> bool:
    return bool(detector.needs & Requirement.SECOND_MODEL)
