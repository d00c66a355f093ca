"""Plan of an audit: the variants to make, and the detectors to run on each."""

from __future__ import annotations

from enum import IntEnum

from assay.auditing.facts import Plan
from assay.calibration.null import NullDistribution
from assay.calibration.reference import make_test_id
from assay.core.finding import FULL
from assay.core.model import Artifact
from assay.detectors import default_detectors, encoder_detectors
from assay.detectors.base import Detector
from assay.detectors.cost import expected_passes
from assay.detectors.requirement import Requirement
from assay.nn.encoders import find_cluster_probe
from assay.stages import variants


class Phase(IntEnum):
    """Part of an audit. The phases with more results per second come first."""

    SCANS = 1  # forward passes only
    SEARCHES = 2
    COMPARISONS = 3  # searches on two models at once
    GRAPHS = 4  # an export takes seconds, and cannot stop in the middle


def phase_of(detector: Detector) -> Phase:
    """Return the part of an audit to which a detector belongs."""
    if detector.expected_cost.exports:
        return Phase.GRAPHS
    if needs_second_model(detector):
        return Phase.COMPARISONS
    return Phase.SEARCHES if Requirement.GRADIENTS in detector.needs else Phase.SCANS


# Order of the phases in several processes: long tests first, so that none is left alone at the end. The first process
# makes the variants for the comparisons while the others search.
PARALLEL_PHASES = (Phase.SEARCHES, Phase.GRAPHS, Phase.COMPARISONS, Phase.SCANS)


def execution_order(plan: Plan, artifact: Artifact, *, longest_first: bool = False) -> tuple[tuple[str, Detector], ...]:
    """Return the tests of a plan in order of execution: phase by phase, in each variant by variant, cheap ones first.

    A variant is made when its first test is due. Tests of one variant and phase follow each other, since only two
    traced models are kept.

    Args:
        plan: The tests.
        artifact: The model; its number of classes and its size decide the costs.
        longest_first: True for several processes: long phases and long tests come first.
    """

    def key(test: tuple[str, Detector]) -> tuple[int, int, float]:
        variant, detector = test
        phase, passes = phase_of(detector), expected_passes(detector.expected_cost, artifact)
        if longest_first:
            return PARALLEL_PHASES.index(phase), plan.variants.index(variant), -passes
        return phase, plan.variants.index(variant), passes

    return tuple(sorted(plan.tests, key=key))


def plan_audit(
    artifact: Artifact,
    names: tuple[str, ...],
    detectors: tuple[Detector, ...] | None,
    null: NullDistribution | None,
) -> Plan:
    """Return the plan of an audit.

    Args:
        artifact: The model; of an encoder, its cluster probe.
        names: Variants to audit.
        detectors: Chosen by the user; all of them run. None: the default ones.
        null: The reference models for the comparison; None: none.
    """
    if detectors is not None:
        return plan_all(artifact, names, detectors)
    if find_cluster_probe(artifact.module) is None:
        return without_useless_tests(plan_all(artifact, names, default_detectors()), null)
    fitting = tuple(test for test in encoder_detectors() if test.modality in (None, artifact.modality))
    return plan_all(artifact, names, fitting)


def plan_all(artifact: Artifact, names: tuple[str, ...], detectors: tuple[Detector, ...]) -> Plan:
    """Return the plan with all possible tests.

    Some detectors run on the full model only. Detectors that compare two models run on each variant, compared with the
    full model, and on the full model if there is a reference.

    Args:
        artifact: The model.
        names: Variants to audit.
        detectors: Detectors to run.
    """

    def applies(variant: str, detector: Detector) -> bool:
        if variant == FULL:
            return not needs_second_model(detector) or artifact.reference is not None
        return detector.on_variants

    return Plan(names, tuple((name, detector) for name in names for detector in detectors if applies(name, detector)))


def without_useless_tests(plan: Plan, null: NullDistribution | None) -> Plan:
    """Return a plan of default detectors without useless tests.

    Comparisons of a variant with the full model take long. The plan omits those without scores of the reference models.
    Variants without any test left are not made.

    Args:
        plan: All possible tests.
        null: The reference models for the comparison; None: none.
    """
    default = plan.variants == variants.DEFAULT

    def useful(variant: str, detector: Detector) -> bool:
        if needs_second_model(detector) and variant != FULL:
            test = make_test_id(variant, detector.name)
            return not null or (null.covers(detector.name) and len(null.scores(test)) > 0)
        return not default or is_default_test(variant, detector)

    tests = tuple((name, detector) for name, detector in plan.tests if useful(name, detector))
    unused = variants.COMPARISON_ONLY - {name for name, _ in tests} if default else frozenset()
    return Plan(tuple(name for name in plan.variants if name not in unused), tests)


def is_default_test(variant: str, detector: Detector) -> bool:
    """Return whether an audit of the default variants includes a test.

    Args:
        variant: Name; some default variants are only compared with the full model.
        detector: A default detector.
    """
    return needs_second_model(detector) or variant not in variants.COMPARISON_ONLY


def needs_second_model(detector: Detector) -> bool:
    """Return whether a detector compares the model with another one."""
    return bool(detector.needs & Requirement.SECOND_MODEL)
