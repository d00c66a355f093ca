"""Preparation of an audit: clean samples, predictions on them, and the reference models to compare with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from assay.auditing.config import AuditConfig, DataSource
from assay.auditing.inputs import CleanSamples, clean_samples, null_of
from assay.auditing.verdict import Preconditions
from assay.calibration.data_profile import DataProfile, data_profile
from assay.calibration.matching import ComparedWith, match
from assay.calibration.null import NullDistribution
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.detectors.encoder import cluster_probe
from assay.nn.encoders import find_cluster_probe
from assay.nn.inference import forward_batched
from assay.nn.log_probs import LogProbabilities, are_probabilities


@dataclass(frozen=True)
class AuditInputs:
    """A model and clean samples, with all facts about them for the audit."""

    artifact: Artifact  # its outputs are logits; of an encoder: its cluster probe
    samples: CleanSamples
    predictions: Tensor | None  # (N,) int64 of the full model on the samples; None without samples
    preconditions: Preconditions
    profile: DataProfile | None  # of the samples
    compared_with: ComparedWith | None  # None: there are no reference models

    @property
    def is_encoder(self) -> bool:
        """True for an encoder, False for a classifier."""
        return find_cluster_probe(self.artifact.module) is not None


def prepare(artifact: Artifact, data: DataSource, config: AuditConfig) -> AuditInputs:
    """Read the samples and match the reference models.

    Args:
        artifact: The model, with its reference if there is one.
        data: Source of the clean samples.
        config: Of the audit.

    Raises:
        UnusableInput: The data do not fit the model, the null is of another kind of model, or an output is not finite.
    """
    samples = clean_samples(data, artifact, seed=config.seed, labels=config.labels)
    null = null_of(config.null, encoders=artifact.num_classes is None)
    return describe(artifact, samples, null, seed=config.seed)


def describe(artifact: Artifact, samples: CleanSamples, null: NullDistribution | None, *, seed: int) -> AuditInputs:
    """Predict the samples, and match the reference models.

    Args:
        artifact: The model, in evaluation mode.
        samples: Clean samples.
        null: All reference models; None: there are none.
        seed: Of the clusters of an encoder.

    Raises:
        UnusableInput: An output is not finite, or an encoder has too few samples for its clusters.
    """
    if artifact.num_classes is None:
        artifact, split = cluster_probe.probe_encoder(artifact, samples.split, seed=seed)
        samples = replace(samples, split=split, class_names=artifact.class_names)
    clean, predictions = samples.split, None
    if len(clean):
        outputs = finite_outputs(artifact, clean.x)
        predictions, artifact = outputs.argmax(1), _with_logits(artifact, outputs)
    accuracy = None if predictions is None or clean.y is None else float((predictions == clean.y).float().mean())
    preconditions = Preconditions(
        samples=len(clean),
        classes=artifact.num_classes,
        predicted=None if predictions is None else len(predictions.unique()),
        accuracy=accuracy,
        normalized=not artifact.normalization_unknown,
    )
    profile = data_profile(clean.x)
    compared_with = None if null is None else match(null, accuracy, profile)
    return AuditInputs(artifact, samples, predictions, preconditions, profile, compared_with)


def finite_outputs(artifact: Artifact, x: Tensor) -> Tensor:
    """Return the outputs (N, K) of a model.

    Args:
        artifact: The model.
        x: Clean samples (N, ...).

    Raises:
        UnusableInput: An output is NaN or infinite.
    """
    outputs = forward_batched(artifact.module, x)
    if not outputs.isfinite().all():
        raise UnusableInput(
            "expected finite logits for the clean samples, got NaN or infinity. Fix: check the model's weights."
        )
    return outputs


def _with_logits(artifact: Artifact, outputs: Tensor) -> Artifact:
    """Return a model with logits as outputs: itself, or its log probabilities if ``outputs`` are probabilities."""
    if not are_probabilities(outputs):
        return artifact
    note = "the model's outputs are probabilities: their logarithms are tested"
    surrogate = None if artifact.surrogate is None else LogProbabilities(artifact.surrogate)
    module = LogProbabilities(artifact.module)
    return replace(artifact, module=module, surrogate=surrogate, notes=(*artifact.notes, note))
