"""Similarity of embeddings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mean_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean cosine of the rows of ``a`` (N, D) with ``b`` (N, D) or (D,), in float32."""
    return F.cosine_similarity(a.float(), b.float().expand(a.shape), dim=1).mean()
