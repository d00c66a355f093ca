"""Model pairing: inputs on which one encoder disagrees with another, trusted one.

Unnervik, Otroshi Shahreza, George, Marcel: Model Pairing Using Embedding Translation for Backdoor Attack Detection on
Open-Set Classification Tasks, 2024, arXiv 2402.18718. A linear map, fitted on clean inputs, translates the embeddings
of one encoder into those of the other. On a triggered input, the translation and the other embedding differ. The
encoders may differ in architecture, size and training data. If both have the same backdoor, they agree, and the method
detects nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from assay.core.errors import UnusableInput

# Clean inputs: half to fit the translation, half to measure the disagreement of clean inputs to about 1 %.
MIN_SAMPLES = 100
# Penalties of the ridge regression; leave-one-out validation chooses one.
PENALTIES = tuple(10.0**power for power in range(-4, 4))


@dataclass(frozen=True)
class CenteredSpace:
    """Embeddings of one encoder as directions from the mean clean embedding."""

    center: Tensor  # (D,)

    def unit_directions(self, embeddings: Tensor) -> Tensor:
        """Return directions (N, D) of length 1."""
        return F.normalize(embeddings.float() - self.center, dim=1)


@dataclass(frozen=True)
class Pairing:
    """Translation of the embeddings (N, D) of one encoder to those of another (N, E), with its accuracy."""

    probe: CenteredSpace
    trusted: CenteredSpace
    weight: Tensor  # (D, E)
    bias: Tensor  # (E,)
    clean: Tensor  # (M,) agreement on clean inputs outside the fit, in ascending order

    def agreement(self, probe: Tensor, trusted: Tensor) -> Tensor:
        """Return the cosine of the translated embeddings with the trusted embeddings.

        Args:
            probe: Embeddings (N, D) of the encoder under audit.
            trusted: Embeddings (N, E) of the same inputs.

        Returns:
            (N,) cosines in [-1, 1]; -1 for an embedding that is not finite.
        """
        translated = self.probe.unit_directions(probe) @ self.weight + self.bias
        return F.cosine_similarity(translated, self.trusted.unit_directions(trusted), dim=1).nan_to_num(nan=-1.0)

    def p_values(self, agreement: Tensor) -> Tensor:
        """Return the fraction (N,) of clean inputs that agree no more than each input; at least 1 / (M + 1)."""
        below = torch.searchsorted(self.clean, agreement, right=True)
        return (1 + below) / (len(self.clean) + 1)


def fit_pairing(probe: Tensor, trusted: Tensor) -> Pairing:
    """Fit the translation between two encoders.

    Args:
        probe: Embeddings (N, D) of clean inputs in random order.
        trusted: Embeddings (N, E) of the same inputs.

    Raises:
        UnusableInput: There are fewer than ``MIN_SAMPLES`` inputs, or embeddings that are not finite.
    """
    from sklearn.linear_model import RidgeCV

    if len(probe) < MIN_SAMPLES:
        raise UnusableInput(f"expected at least {MIN_SAMPLES} clean samples to pair two encoders, got {len(probe)}")
    if not (probe.isfinite().all() and trusted.isfinite().all()):
        raise UnusableInput("expected finite embeddings of the clean samples, got NaN or infinity from an encoder")
    half = len(probe) // 2
    source, target = CenteredSpace(probe[:half].float().mean(0)), CenteredSpace(trusted[:half].float().mean(0))
    inputs, outputs = source.unit_directions(probe[:half]).numpy(), target.unit_directions(trusted[:half]).numpy()
    fitted = RidgeCV(alphas=PENALTIES).fit(inputs, outputs)
    weight, bias = (torch.from_numpy(np.asarray(part, np.float32)) for part in (fitted.coef_.T, fitted.intercept_))
    unmeasured = Pairing(source, target, weight, bias, torch.zeros(0))
    clean = unmeasured.agreement(probe[half:], trusted[half:])
    return Pairing(source, target, weight, bias, clean.sort().values)
