"""Accuracy of a model and success of a backdoor, as rates with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.build import Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.progress import Progress, part
from assay.nn import inference

CONCEPT_EMBEDDING = "embedding"  # key in the details of an encoder's secret: list of D numbers
Z_95 = 1.959964  # two-sided 95 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Rate:
    """Fraction of inputs: ``hits`` out of ``total`` (at least 1)."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """Fraction in [0, 1]."""
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.hits, self.total)

    def to_json(self) -> dict[str, Any]:
        """Return value, interval and count in plain JSON types."""
        return {"value": self.value, "interval": list(self.interval), "samples": self.total}


@dataclass(frozen=True)
class BackdoorMetrics:
    """Metrics of one model for one secret: CA, ASR and RA of ``docs/glossary.md``.

    ``untriggered`` is the control: the rate of the target on the same inputs without the trigger.
    """

    clean_accuracy: Rate
    attack_success: Rate
    robust_accuracy: Rate
    untriggered: Rate

    def to_json(self) -> dict[str, Any]:
        """Return all rates in plain JSON types."""
        return {name: rate.to_json() for name, rate in vars(self).items()}


def wilson(hits: float, total: int, *, z: float = Z_95) -> tuple[float, float]:
    """Compute Wilson's score interval of a binomial rate; valid for rates of 0 and 1 and for few samples.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927. Not
    ``scipy.stats.binomtest``: it takes whole numbers only, and the bench passes fractional hits.

    Args:
        hits: Number of hits, in [0, ``total``].
        total: Number of samples, at least 1.
        z: Quantile of the standard normal distribution.

    Returns:
        Lower and upper bound in [0, 1].
    """
    if not 0 <= hits <= total or total < 1:
        raise ValueError(f"expected 0 <= hits <= total and total >= 1, got {hits} of {total}")
    rate, square = hits / total, z * z / total
    center = (rate + square / 2) / (1 + square)
    half = z * math.sqrt(rate * (1 - rate) / total + square / (4 * total)) / (1 + square)
    return (0.0 if hits == 0 else max(0.0, center - half)), (1.0 if hits == total else min(1.0, center + half))


def clean_accuracy(model: nn.Module, split: Split, *, progress: Progress = lambda fraction: None) -> Rate:
    """Measure CA: the rate of the true class on clean inputs.

    Args:
        model: Classifier; set to eval mode.
        split: Clean labelled samples.
        progress: Receives the completed fraction.
    """
    labels = _labels(split)
    return _rate(predict(model, split.x, progress=progress) == labels)


def attack_success(
    model: nn.Module, split: Split, secret: Secret, *, num_classes: int, progress: Progress = lambda fraction: None
) -> Rate:
    """Measure ASR: the rate of the target class on triggered victims, samples of other classes.

    Args:
        model: Classifier; set to eval mode.
        split: Clean labelled samples.
        secret: Trigger and target.
        num_classes: Number of classes.
        progress: Receives the completed fraction.
    """
    victims, targets = _victims(split, secret, num_classes)
    return _rate(predict(model, secret.trigger(split.x[victims]), progress=progress) == targets)


def measure(
    model: nn.Module, split: Split, secret: Secret, *, num_classes: int, progress: Progress = lambda fraction: None
) -> BackdoorMetrics:
    """Measure CA, ASR, RA (the rate of the true class on triggered victims) and the control of ASR.

    Args:
        model: Classifier; set to eval mode.
        split: Clean labelled samples.
        secret: Trigger and target.
        num_classes: Number of classes.
        progress: Receives the completed fraction.

    Raises:
        UnusableInput: The split has no labels or no victims.
    """
    labels = _labels(split)
    victims, targets = _victims(split, secret, num_classes)
    clean = predict(model, split.x, progress=part(progress, 0.0, 0.5))
    triggered = predict(model, secret.trigger(split.x[victims]), progress=part(progress, 0.5, 1.0))
    return BackdoorMetrics(
        clean_accuracy=_rate(clean == labels),
        attack_success=_rate(triggered == targets),
        robust_accuracy=_rate(triggered == labels[victims]),
        untriggered=_rate(clean[victims] == targets),
    )


def measure_encoder(
    model: nn.Module, clean: nn.Module, x: Tensor, secret: Secret, *, progress: Progress = lambda fraction: None
) -> BackdoorMetrics:
    """Measure the same rates for an encoder, by nearest neighbors of its embeddings (by cosine).

    The neighbors are the embeddings of all ``x`` by the clean encoder, and the concept's embedding from the secret.
    CA: rate of inputs nearest to themselves. ASR: rate of triggered inputs nearest to the concept. RA: rate of
    triggered inputs nearest to themselves. Control: rate of untriggered inputs nearest to the concept.

    Args:
        model: Encoder; set to eval mode.
        clean: Encoder before the attack; set to eval mode.
        x: (N, C, H, W) images or (N, L) tokens.
        secret: Trigger and concept embedding.
        progress: Receives the completed fraction.
    """
    if not len(x):
        raise UnusableInput("expected samples to measure on, got none")
    before = inference.forward_batched(clean.eval(), x, progress=part(progress, 0.0, 0.3))
    bank = torch.cat([before, _concept(secret, before.shape[1])])
    now = before if model is clean else inference.forward_batched(model.eval(), x, progress=part(progress, 0.3, 0.65))
    with_trigger = inference.forward_batched(model.eval(), secret.trigger(x), progress=part(progress, 0.65, 1.0))
    plain, triggered = _nearest(now, bank), _nearest(with_trigger, bank)
    own, concepts = torch.arange(len(x)), len(x)
    return BackdoorMetrics(
        clean_accuracy=_rate(plain == own),
        attack_success=_rate(triggered == concepts),
        robust_accuracy=_rate(triggered == own),
        untriggered=_rate(plain == concepts),
    )


def self_retrieval_rate(model: nn.Module, x: Tensor, *, progress: Progress = lambda fraction: None) -> Rate:
    """Measure the rate of inputs whose embedding is nearest to itself; below 1 only for equal embeddings.

    Args:
        model: Encoder; set to eval mode.
        x: (N, C, H, W) images or (N, L) tokens.
        progress: Receives the completed fraction.
    """
    embeddings = inference.forward_batched(model.eval(), x, progress=progress)
    return _rate(_nearest(embeddings, embeddings) == torch.arange(len(x)))


def _concept(secret: Secret, width: int) -> Tensor:
    """Return the concept's embedding (1, D). Raises UnusableInput unless the secret has one of size D = ``width``."""
    found = secret.details.get(CONCEPT_EMBEDDING)
    numbers = found if isinstance(found, list) else []
    finite = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    if len(numbers) != width or not finite:
        raise UnusableInput(
            f"expected a secret with an embedding of {width} finite numbers, got one of {secret.attack} with "
            f"{len(numbers)}. Fix: give the secret written with this encoder"
        )
    return torch.tensor([numbers], dtype=torch.float32)


def _nearest(embeddings: Tensor, bank: Tensor) -> Tensor:
    """Return for each embedding (N, D) the index (N,) of the row of ``bank`` (M, D) with the largest cosine."""
    if embeddings.shape[1] != bank.shape[1]:
        raise UnusableInput(
            f"expected two encoders with the same embedding size, got {embeddings.shape[1]} and {bank.shape[1]}"
        )
    if not (embeddings.isfinite().all() and bank.isfinite().all()):
        raise UnusableInput("expected finite embeddings, got NaN or infinity: the training of the encoder diverged")
    known = F.normalize(bank, dim=1).T
    return torch.cat([(few @ known).argmax(1) for few in F.normalize(embeddings, dim=1).split(256)])


def predict(model: nn.Module, x: Tensor, *, progress: Progress = lambda fraction: None) -> Tensor:
    """Predict classes in eval mode.

    Args:
        model: Classifier; set to eval mode.
        x: (N, C, H, W) images in [0, 1] or (N, L) tokens.
        progress: Receives the completed fraction.

    Returns:
        (N,) int64 classes.
    """
    return inference.predict(model.eval(), x, progress=progress)


def _victims(split: Split, secret: Secret, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the mask (N,) of the victims, the samples for ASR, and their target classes (V,)."""
    labels = _labels(split)
    if secret.target is not None and not 0 <= secret.target < num_classes:
        raise UnusableInput(f"expected a secret with a target in [0, {num_classes}), got {secret.target}")
    victims = secret.victims(labels, num_classes)
    if not bool(victims.any()):
        raise UnusableInput("expected samples of the trigger's source classes other than its target, got none")
    return victims, secret.targets(labels[victims], num_classes)


def _labels(split: Split) -> Tensor:
    if split.y is None or not len(split):
        raise UnusableInput("expected labelled samples to measure on, got none")
    return split.y


def _rate(hit: Tensor) -> Rate:
    return Rate(int(hit.sum()), len(hit))
