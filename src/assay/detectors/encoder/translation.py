"""Model pairing: an input on which one encoder does not agree with another, trusted one.

Unnervik, Otroshi Shahreza, George, Marcel: Model Pairing Using Embedding Translation for Backdoor Attack Detection on
Open-Set Classification Tasks, 2024, arXiv 2402.18718. A linear map fitted on clean inputs translates what the one says
into what the other says; what the one says of a triggered input is not what the other says of it. The two may differ
in architecture, size and training data. Where both carry the same backdoor they agree, and nothing is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from assay.core.errors import UnusableInput

FEWEST = 100
"""Clean inputs: half of them to fit the translation, half to know how far clean ones disagree, to the percent or so."""

PENALTIES = tuple(10.0**power for power in range(-4, 4))
"""Of the ridge regression, out of which leaving one input out chooses."""


@dataclass(frozen=True)
class Side:
    """How one encoder's embeddings are looked at: as directions from the mean clean one."""

    centre: Tensor  # (D,)

    def seen(self, embeddings: Tensor) -> Tensor:
        """(N, D) of length 1."""
        return F.normalize(embeddings.float() - self.centre, dim=1)


@dataclass(frozen=True)
class Pairing:
    """A translation from one encoder's embeddings (N, D) to another's (N, E), and how well it does on clean inputs."""

    probe: Side
    trusted: Side
    weight: Tensor  # (D, E)
    bias: Tensor  # (E,)
    clean: Tensor  # (M,) agreement on clean inputs that it was not fitted on, the lowest first

    def agreement(self, probe: Tensor, trusted: Tensor) -> Tensor:
        """(N,): the cosine of the translated embeddings of the same N inputs with the trusted ones, in [-1, 1].

        -1 too where one of the two encoders has no finite answer.
        """
        translated = self.probe.seen(probe) @ self.weight + self.bias
        return F.cosine_similarity(translated, self.trusted.seen(trusted), dim=1).nan_to_num(nan=-1.0)

    def p_values(self, agreement: Tensor) -> Tensor:
        """(N,): how often a clean input agrees no more than this one; at least 1 / (M + 1)."""
        below = torch.searchsorted(self.clean, agreement, right=True)
        return (1 + below) / (len(self.clean) + 1)


def paired(probe: Tensor, trusted: Tensor) -> Pairing:
    """The pairing of two encoders by their embeddings (N, D) and (N, E) of the same clean inputs, in random order.

    Raises UnusableInput for fewer than ``FEWEST`` inputs, and for embeddings that are no numbers.
    """
    from sklearn.linear_model import RidgeCV

    if len(probe) < FEWEST:
        raise UnusableInput(f"expected at least {FEWEST} clean samples to pair two encoders with, came {len(probe)}")
    if not (probe.isfinite().all() and trusted.isfinite().all()):
        raise UnusableInput(
            "expected finite embeddings of the clean samples; one of the encoders gives NaN or infinity"
        )
    half = len(probe) // 2
    ours, theirs = Side(probe[:half].float().mean(0)), Side(trusted[:half].float().mean(0))
    fitted = RidgeCV(alphas=PENALTIES).fit(ours.seen(probe[:half]).numpy(), theirs.seen(trusted[:half]).numpy())
    weight, bias = (torch.from_numpy(np.asarray(part, np.float32)) for part in (fitted.coef_.T, fitted.intercept_))
    unsorted = Pairing(ours, theirs, weight, bias, torch.zeros(0))
    held = unsorted.agreement(probe[half:], trusted[half:])
    return Pairing(ours, theirs, weight, bias, held.sort().values)
