"""Two models as one: the disagreement of a compressed model with the full-precision one.

On the trigger of a compression-activated backdoor, the two models differ. The compressed model predicts the
attacker's class; the full-precision model keeps its prediction. The combined model has one outcome per class k
("the compressed model predicts k and the full one does not") and one for agreement. Any class search can run on it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DisagreementModel(nn.Module):
    """(N, C, H, W) -> (N, K + 1) log-probabilities, as if the two models drew their predictions independently.

    The last outcome is agreement on a class. Logits may be bfloat16; log-probabilities are float32.
    """

    def __init__(self, full: nn.Module, compressed: nn.Module) -> None:
        super().__init__()
        self.full, self.compressed = full, compressed

    def forward(self, x: Tensor) -> Tensor:
        """Return the log-probabilities of the outcomes."""
        compressed = self.compressed(x).float().log_softmax(1)
        full = self.full(x).float().log_softmax(1)
        # log(1 - p) of the full model; the clamp bounds its gradient near p = 1
        log_rest = torch.log1p(-full.exp().clamp(max=1 - 1e-4))
        agree = (compressed + full).logsumexp(1, keepdim=True)
        return torch.cat([compressed + log_rest, agree], 1)


def compression_outcomes(compressed: Tensor, full: Tensor, predicted: Tensor) -> Tensor:
    """Return log-probabilities of the effects of a compression-activated backdoor.

    Outcome k: the compressed model predicts k and the full-precision model keeps its clean prediction. Last outcome:
    the full-precision model does not keep it. On clean models, patterns against the compressed variant alone move
    the full-precision model to a third class. A compression-activated backdoor does not move it.

    Args:
        compressed: (N, K) logits of the compressed model on triggered images.
        full: (N, K) logits of the full-precision model on triggered images.
        predicted: (N,) predictions of the full-precision model without the trigger.

    Returns:
        (N, K + 1) log-probabilities.
    """
    compressed, full = compressed.double().log_softmax(1), full.double().log_softmax(1)
    kept = full.gather(1, predicted[:, None])
    changed = full.scatter(1, predicted[:, None], -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([compressed + kept, changed], 1)
