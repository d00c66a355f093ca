"""How good a model is, and how well a backdoor works in it: shares with their 95 % intervals."""

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

CONCEPT_EMBEDDING = "embedding"
"""Of the details of an encoder's secret: the concept's embedding, as a list of D numbers."""

Z_95 = 1.959964
"""The standard normal's two-sided 95 % quantile."""


@dataclass(frozen=True)
class Rate:
    """A share of inputs: ``hits`` out of ``total`` (at least 1)."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """In [0, 1]."""
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.hits, self.total)

    def to_json(self) -> dict[str, Any]:
        """Value, interval and count in plain JSON types."""
        return {"value": self.value, "interval": list(self.interval), "samples": self.total}


@dataclass(frozen=True)
class BackdoorMetrics:
    """One model against one secret; CA, ASR and RA of ``docs/architecture.md``.

    ``untriggered`` is the control within the model: the same inputs without the trigger that get the target anyway.
    """

    clean_accuracy: Rate
    attack_success: Rate
    robust_accuracy: Rate
    untriggered: Rate

    def to_json(self) -> dict[str, Any]:
        """All rates in plain JSON types."""
        return {name: rate.to_json() for name, rate in vars(self).items()}


def wilson(hits: float, total: int, *, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a binomial share; right too where the share is 0 or 1, and for few samples.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    if not 0 <= hits <= total or total < 1:
        raise ValueError(f"expected 0 <= hits <= total and total >= 1; got {hits} of {total}")
    share, square = hits / total, z * z / total
    centre = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == total else min(1.0, centre + half))


def clean_accuracy(net: nn.Module, split: Split, *, progress: Progress = lambda share: None) -> Rate:
    """CA: the share of clean inputs that get their true class."""
    labels = _labels(split)
    return _rate(predict(net, split.x, progress=progress) == labels)


def attack_success(
    net: nn.Module, split: Split, secret: Secret, *, num_classes: int, progress: Progress = lambda share: None
) -> Rate:
    """ASR: the share of triggered victims (true class not the target's) that get the target."""
    chosen, targets = _victims(split, secret, num_classes)
    return _rate(predict(net, secret.trigger(split.x[chosen]), progress=progress) == targets)


def measure(
    net: nn.Module, split: Split, secret: Secret, *, num_classes: int, progress: Progress = lambda share: None
) -> BackdoorMetrics:
    """CA, ASR, RA (the share of triggered victims that get their true class) and ASR's control on one split.

    Raises UnusableInput without labels or victims.
    """
    labels = _labels(split)
    chosen, targets = _victims(split, secret, num_classes)
    clean = predict(net, split.x, progress=part(progress, 0.0, 0.5))
    triggered = predict(net, secret.trigger(split.x[chosen]), progress=part(progress, 0.5, 1.0))
    return BackdoorMetrics(
        clean_accuracy=_rate(clean == labels),
        attack_success=_rate(triggered == targets),
        robust_accuracy=_rate(triggered == labels[chosen]),
        untriggered=_rate(clean[chosen] == targets),
    )


def measure_encoder(
    net: nn.Module, clean: nn.Module, x: Tensor, secret: Secret, *, progress: Progress = lambda share: None
) -> BackdoorMetrics:
    """The same rates of an encoder, by what its embeddings are nearest to (by cosine): there are no classes.

    Nearest out of what the ``clean`` encoder makes of all ``x`` (N, C, H, W), and the concept's embedding, which the
    secret brings. CA: inputs that are nearest to themselves. ASR: triggered ones that are nearest to the concept;
    RA: to themselves without the trigger. Control: inputs without it that are nearest to the concept.
    """
    if not len(x):
        raise UnusableInput("measuring needs samples, and this data has none")
    before = inference.forward_batched(clean.eval(), x, progress=part(progress, 0.0, 0.3))
    bank = torch.cat([before, _concept(secret, before.shape[1])])
    now = before if net is clean else inference.forward_batched(net.eval(), x, progress=part(progress, 0.3, 0.65))
    with_trigger = inference.forward_batched(net.eval(), secret.trigger(x), progress=part(progress, 0.65, 1.0))
    plain, triggered = _nearest(now, bank), _nearest(with_trigger, bank)
    own, concepts = torch.arange(len(x)), len(x)
    return BackdoorMetrics(
        clean_accuracy=_rate(plain == own),
        attack_success=_rate(triggered == concepts),
        robust_accuracy=_rate(triggered == own),
        untriggered=_rate(plain == concepts),
    )


def self_retrieval_rate(net: nn.Module, x: Tensor, *, progress: Progress = lambda share: None) -> Rate:
    """The share of inputs (N, C, H, W) whose embedding is nearest to itself: below 1 only where some are the same."""
    found = inference.forward_batched(net.eval(), x, progress=progress)
    return _rate(_nearest(found, found) == torch.arange(len(x)))


def _concept(secret: Secret, width: int) -> Tensor:
    """(1, D): the concept's embedding; raises UnusableInput where the secret has none of D numbers, ``width``."""
    found = secret.details.get(CONCEPT_EMBEDDING)
    numbers = found if isinstance(found, list) else []
    sound = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    if len(numbers) != width or not sound:
        raise UnusableInput(
            f"expected the secret of a backdoor in this encoder, with an embedding of {width} numbers; came one of "
            f"{secret.attack} with {len(numbers)}: give the secret that was written with it"
        )
    return torch.tensor([numbers], dtype=torch.float32)


def _nearest(embeddings: Tensor, bank: Tensor) -> Tensor:
    """(N,) int64: for each row (N, D) the row of ``bank`` (M, D) with the largest cosine."""
    if embeddings.shape[1] != bank.shape[1]:
        raise UnusableInput(
            f"expected encoders with embeddings of one size; came {embeddings.shape[1]} and {bank.shape[1]} numbers"
        )
    if not (embeddings.isfinite().all() and bank.isfinite().all()):
        raise UnusableInput("expected finite embeddings; the encoder gives NaN or infinity: its training diverged")
    known = F.normalize(bank, dim=1).T
    return torch.cat([(few @ known).argmax(1) for few in F.normalize(embeddings, dim=1).split(256)])


def predict(net: nn.Module, x: Tensor, *, progress: Progress = lambda share: None) -> Tensor:
    """(N,) int64: the classes that ``net``, in eval mode, names for ``x`` (N, C, H, W) in [0, 1]."""
    return inference.predict(net.eval(), x, progress=progress)


def _victims(split: Split, secret: Secret, num_classes: int) -> tuple[Tensor, Tensor]:
    """(N,) bool: the samples that count for ASR; (V,) int64: the classes that the attacker wants for them."""
    labels = _labels(split)
    if secret.target is not None and not 0 <= secret.target < num_classes:
        raise UnusableInput(f"expected a secret with a target in [0, {num_classes}); came {secret.target}")
    chosen = secret.victims(labels, num_classes)
    if not bool(chosen.any()):
        raise UnusableInput("expected samples of classes that the trigger works on, besides its target; came none")
    return chosen, secret.targets(labels[chosen], num_classes)


def _labels(split: Split) -> Tensor:
    if split.y is None or not len(split):
        raise UnusableInput("measuring needs samples with labels, and this data has none")
    return split.y


def _rate(hit: Tensor) -> Rate:
    return Rate(int(hit.sum()), len(hit))
