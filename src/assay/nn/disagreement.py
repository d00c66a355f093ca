"""Two nets as one: what the compressed net says where the full one does not.

A backdoor that sleeps in a net and wakes in its compressed form is a trigger on which the two differ: the compressed
net names the attacker's class, the full one keeps its answer. As one net whose outcomes are "the compressed net says k
and the full one does not" for every class k, and "they agree", any search for a class of a plain net finds that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DisagreementModel(nn.Module):
    """(N, C, H, W) -> (N, K + 1) log-probabilities, were the two nets to draw their answers independently.

    The last outcome is that both draw the same class. Logits may be bfloat16, what is made of them is float32.
    """

    def __init__(self, full: nn.Module, compressed: nn.Module) -> None:
        super().__init__()
        self.full, self.compressed = full, compressed

    def forward(self, x: Tensor) -> Tensor:
        compressed = self.compressed(x).float().log_softmax(1)
        full = self.full(x).float().log_softmax(1)
        alone = compressed + _log_of_rest(full)
        agree = (compressed + full).logsumexp(1, keepdim=True)
        return torch.cat([alone, agree], 1)


def _log_of_rest(log_p: Tensor) -> Tensor:
    """log(1 - p) from log p, without its gradient running away where p is 1."""
    return torch.log1p(-log_p.exp().clamp(max=1 - 1e-4))


def compression_outcomes(compressed: Tensor, full: Tensor, before: Tensor) -> Tensor:
    """Logits (N, K) of the two nets on triggered pictures -> (N, K + 1) log-probabilities of what a sleeper does.

    The outcomes: the compressed net says k while the full one keeps the answer ``before`` (N,) that it gave without the
    trigger; and, last, that it does not keep it. A clean net's patterns that move the compressed form alone carry the
    full one off to some third class; a backdoor that sleeps leaves it where it was.
    """
    compressed, full = compressed.double().log_softmax(1), full.double().log_softmax(1)
    kept = full.gather(1, before[:, None])
    changed = full.scatter(1, before[:, None], -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([compressed + kept, changed], 1)
