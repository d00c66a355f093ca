"""Logits in units of a model's own margin, so that scores compare between models."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from assay.core.dataset import Split
from assay.core.model import Artifact
from assay.nn.inference import forward_batched
from assay.nn.log_probs import LogProbabilities, are_probabilities
from assay.nn.unit_margin import MARGIN_SAMPLES, UnitMargin, scale_to_unit_margin


def in_margin_units(artifact: Artifact, clean: Split, outputs: Tensor | None = None) -> Artifact:
    """Return ``artifact`` with logits in units of its median margin on ``clean``.

    Probabilities become log probabilities first. An encoder, a model without clean samples and a model that is in these
    units already stay as they are.

    Args:
        artifact: The model under audit.
        clean: Clean samples; the first ``MARGIN_SAMPLES`` of them set the unit.
        outputs: (N, K) outputs for these samples, if they are known.

    Returns:
        A copy with a wrapped module, or ``artifact`` itself.
    """
    if isinstance(artifact.module, UnitMargin) or artifact.num_classes is None or not len(clean):
        return artifact
    module, x = artifact.module, clean.x[:MARGIN_SAMPLES]
    outputs = forward_batched(module, x) if outputs is None else outputs[: len(x)]
    if are_probabilities(outputs):
        module = LogProbabilities(module)
        outputs = forward_batched(module, x)
    return replace(artifact, module=scale_to_unit_margin(module, outputs))
