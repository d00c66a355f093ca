"""Trial of the usual normalizations on labelled samples, for a model with few right predictions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.model import Artifact, ImageSpec
from assay.nn.inference import forward_batched
from assay.nn.log_probs import LogProbabilities
from assay.nn.normalized import Normalized

MAX_TRIED = 128  # labelled samples
MIN_SAMPLES = 16
GOOD_ACCURACY = 0.8  # no trial above
MIN_GAIN = 0.2  # of the accuracy, for a normalization to be reported


@dataclass(frozen=True)
class Usual:
    """One usual normalization of [0, 1] pixels."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_options(self) -> str:
        """Return mean and std as the options take them."""
        mean, std = (",".join(f"{value:.9g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean} and std {std}"


USUAL = (
    Usual("values from 0 to 1", (0.0,), (1.0,)),
    Usual("values from 0 to 255", (0.0,), (1 / 255,)),
    Usual("values from -1 to 1", (0.5,), (0.5,)),
    Usual("ImageNet's mean and std", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Usual("0 to 255 without ImageNet's mean", (0.485, 0.456, 0.406), (1 / 255,)),
)


def try_normalizations(artifact: Artifact, split: Split, accuracy: float | None) -> str:
    """Return a sentence on a normalization with far more right predictions; empty without one.

    Args:
        artifact: An image classifier.
        split: Clean samples with labels.
        accuracy: Fraction of right predictions as it is; None: unknown.
    """
    if accuracy is None or accuracy >= GOOD_ACCURACY or split.y is None or len(split) < MIN_SAMPLES:
        return ""
    if not isinstance(artifact.inputs, ImageSpec) or artifact.inputs.shape[0] not in (1, 3):
        return ""
    places = torch.linspace(0, len(split) - 1, min(MAX_TRIED, len(split))).long()
    x, y, inner = split.x[places], split.y[places], _without_normalization(artifact.module)
    tried = [(_accuracy(inner, usual, x, y), usual, "") for usual in USUAL if len(usual.mean) in (1, x.shape[1])]
    if x.shape[1] == 3:
        tried += [(_accuracy(inner, usual, x.flip(1), y), usual, "BGR") for _, usual, _ in tuple(tried)]
    best, usual, order = max(tried, key=lambda found: found[0])
    if best < accuracy + MIN_GAIN:
        return ""
    if order:
        return (
            f"with the channels in the order BGR and {usual.as_options()} ({usual.name}), it is right on {best:.0%} of "
            f"{len(y)} samples. Fix: put the flip of the channels into the model, and give {usual.as_options()}"
        )
    return f"with {usual.name}, it is right on {best:.0%} of {len(y)} samples. Fix: give {usual.as_options()}"


def _without_normalization(module: nn.Module) -> nn.Module:
    """Return the module behind the normalization, the module itself if it has none."""
    while isinstance(module, LogProbabilities | Normalized):
        module = module.net
    return module


def _accuracy(module: nn.Module, usual: Usual, x: Tensor, y: Tensor) -> float:
    """Return the fraction of right predictions; 0 if the model fails on such values."""
    channels = x.shape[1]
    mean, std = (values * channels if len(values) == 1 else values for values in (usual.mean, usual.std))
    try:
        outputs = forward_batched(Normalized(module, mean, std).eval(), x)
    except Exception:  # a model can fail in any way on values outside of its range
        return 0.0
    return float((outputs.argmax(1) == y).float().mean())
