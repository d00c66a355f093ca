"""Handwritten digits of scikit-learn: 1,797 gray images of 8 x 8 pixels, real data without a download.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import torch

from assay.core.dataset import Split, Task
from assay.data.synthetic.signs import SPLIT_FRACTIONS


def digits(*, seed: int = 0) -> Task:
    """Return the digits (N, 1, 8, 8) float32 in [0, 1], in random train, calibration, validation and test splits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16  # gray levels 0 to 16
    y = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    sizes = [int(len(x) * fraction) for fraction in SPLIT_FRACTIONS.values()]
    sizes[0] += len(x) - sum(sizes)
    parts = order.split(sizes)
    return Task(
        "digits",
        {name: Split(x[part], y[part]) for name, part in zip(SPLIT_FRACTIONS, parts, strict=True)},
        tuple(map(str, range(10))),
    )
