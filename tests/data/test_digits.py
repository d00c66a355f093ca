"""Tests of scikit-learn's digits."""

from __future__ import annotations

import torch

from assay.data.synthetic import digits


def test_splits_hold_each_digit_once() -> None:
    task = digits(seed=3)
    assert sum(map(len, task.splits.values())) == 1797
    assert list(task.splits) == ["train", "calibration", "validation", "test"]
    assert task.num_classes == 10
    split = task.splits["test"]
    assert split.x.shape[1:] == (1, 8, 8)
    assert 0 <= split.x.min() <= split.x.max() <= 1
    assert torch.equal(split.x, digits(seed=3).splits["test"].x)
    assert not torch.equal(split.x, digits(seed=4).splits["test"].x)
