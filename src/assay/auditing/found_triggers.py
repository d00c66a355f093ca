"""Found triggers, rounded to 8 bits and measured one by one, as a deployed model meets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from assay.auditing.facts import AuditInputs, AuditRun, RunContext
from assay.auditing.image_edits import on_grid
from assay.core.finding import Evidence, Finding
from assay.core.model import Artifact, Modality
from assay.core.result import DeploymentDifference
from assay.detectors.budget import StepBudget
from assay.nn.inference import predict

IMAGES = 64  # images for the success rate of one trigger
MAX_TRIGGERS = 4  # findings with the highest success rate that are measured one by one
# Difference of two success rates. A guess: the change by rounding alone was not measured.
MAX_DIFFERENCE = 0.3
WAY = "triggers in 8 bits, one by one"
IN_BATCHES, ONE_BY_ONE = "success in batches", "success in 8 bits, one by one"


def measure_found_triggers(
    inputs: AuditInputs, run: AuditRun, context: RunContext
) -> tuple[AuditRun, tuple[DeploymentDifference, ...]]:
    """Measure the triggers of all findings as an image file holds them, and one by one.

    Args:
        inputs: The model and the samples.
        run: Findings and variants.
        context: Budget and progress.

    Returns:
        The findings with both success rates among the numbers of their evidence, and the differences between the two.
    """
    if inputs.artifact.modality is not Modality.IMAGE or inputs.predictions is None:
        return run, ()
    context.progress("found triggers, one by one", 1.0)
    findings, rates = list(run.findings), dict[int, tuple[float, Tensor]]()
    steps = StepBudget(context.budget)
    for number, finding in enumerate(findings):
        variant = run.made.get(finding.variant)
        if variant is not None and context.budget.left() > 0:
            triggered = _triggered(inputs, finding)
            if triggered is not None:
                with steps.step():  # one by one is no faster than in batches
                    rates[number] = (_fraction(predict(variant.module, triggered), finding), triggered)
    differences = []
    for number in sorted(rates, key=lambda number: -rates[number][0])[:MAX_TRIGGERS]:
        finding, (rate, triggered) = findings[number], rates[number]
        variant = run.made[finding.variant]
        if not steps.allows_step():
            break
        with steps.step():
            single = _success_one_by_one(variant, triggered, finding)
        numbers = {**finding.evidence.numbers, IN_BATCHES: rate, ONE_BY_ONE: single}
        evidence = _as_shown(replace(finding.evidence, numbers=numbers), variant)
        findings[number] = replace(finding, evidence=evidence)
        if abs(single - rate) > MAX_DIFFERENCE:
            sentence = (
                f"the trigger of {finding.detector} on the variant {finding.variant} succeeds on {rate:.0%} of the "
                f"images in batches, and on {single:.0%} in 8 bits, one by one"
            )
            differences.append(DeploymentDifference(WAY, "trigger", sentence, numbers, len(triggered)))
    return replace(run, findings=tuple(findings)), tuple(differences)


def _triggered(inputs: AuditInputs, finding: Finding) -> Tensor | None:
    """Return images of other classes with the trigger of a finding; None without a trigger or such images."""
    evidence: Evidence = finding.evidence
    if evidence.apply is None or finding.target is None or inputs.predictions is None:
        return None
    others = inputs.samples.split.x[inputs.predictions != finding.target][:IMAGES]
    if not len(others):
        return None
    try:
        with torch.no_grad():
            return evidence.apply(others).detach()
    except Exception:  # the trigger of a text or of a variant that is gone
        return None


def _as_shown(evidence: Evidence, variant: Artifact) -> Evidence:
    """Return evidence whose triggered images and predictions are those of an image file: rounded to 8 bits."""
    if evidence.after is None:
        return evidence
    after = on_grid(torch.as_tensor(evidence.after, dtype=torch.float32))
    predicted = evidence.predicted_after and tuple(predict(variant.module, after).tolist())
    return replace(evidence, after=after.numpy(), predicted_after=predicted)


def _success_one_by_one(variant: Artifact, triggered: Tensor, finding: Finding) -> float:
    with torch.no_grad():
        answers: Sequence[Tensor] = [variant.module(image).argmax(1) for image in on_grid(triggered).split(1)]
    return _fraction(torch.cat(list(answers)), finding)


def _fraction(predictions: Tensor, finding: Finding) -> float:
    return float((predictions == torch.tensor(finding.target)).float().mean())
