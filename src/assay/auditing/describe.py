"""Description of a model for an audit: predictions on the clean samples, and matched reference models."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from assay.auditing.facts import AuditInputs, CleanSamples, Preconditions
from assay.auditing.input_check import choose_numbering
from assay.auditing.normalization_trial import try_normalizations
from assay.calibration.data_profile import data_profile
from assay.calibration.matching import match
from assay.calibration.null import NullDistribution
from assay.core.model import Artifact
from assay.detectors.encoder import cluster_probe
from assay.nn.inference import forward_finite
from assay.nn.log_probs import LogProbabilities, are_probabilities


def describe(artifact: Artifact, samples: CleanSamples, null: NullDistribution | None, *, seed: int) -> AuditInputs:
    """Predict the samples, and match the reference models.

    Args:
        artifact: The model, in evaluation mode.
        samples: Clean samples.
        null: All reference models; None: there are none.
        seed: Seed of the clusters of an encoder.

    Raises:
        UnusableInput: An output is not finite, or an encoder has too few samples for its clusters.
    """
    if artifact.num_classes is None:
        artifact, split = cluster_probe.probe_encoder(artifact, samples.split, seed=seed)
        samples = replace(samples, split=split, class_names=artifact.class_names)
    clean, predictions = samples.split, None
    if len(clean):
        outputs = forward_finite(artifact.module, clean.x)
        predictions, artifact = outputs.argmax(1), _with_logits(artifact, outputs)
        samples = choose_numbering(samples, predictions)
        clean = samples.split
    accuracy = None if predictions is None or clean.y is None else float((predictions == clean.y).float().mean())
    preconditions = Preconditions(
        samples=len(clean),
        classes=artifact.num_classes,
        predicted=None if predictions is None else len(predictions.unique()),
        accuracy=accuracy,
        normalized=not artifact.normalization_unknown,
        better_normalization=try_normalizations(artifact, clean, accuracy),
    )
    profile = data_profile(clean.x)
    compared_with = None if null is None else match(null, accuracy, profile)
    return AuditInputs(artifact, samples, predictions, preconditions, profile, compared_with)


def _with_logits(artifact: Artifact, outputs: Tensor) -> Artifact:
    """Return a model with logits as outputs: itself, or its log probabilities if ``outputs`` are probabilities."""
    if not are_probabilities(outputs):
        return artifact
    note = "the model's outputs are probabilities: their logarithms are tested"
    surrogate = None if artifact.surrogate is None else LogProbabilities(artifact.surrogate)
    module = LogProbabilities(artifact.module)
    return replace(artifact, module=module, surrogate=surrogate, notes=(*artifact.notes, note))
