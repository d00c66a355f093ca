"""Tests of the outlier score."""

from __future__ import annotations

import pytest
import torch

from assay.inversion.outlier import log_odds, mean_over_others, outlier_score


def test_outlier_score_is_largest_gap_among_most_reachable() -> None:
    assert outlier_score(torch.tensor([1.0, 5.0, 1.5, 0.9])) == pytest.approx(3.5)
    two_backdoored = torch.tensor([5.0, 4.9, 1.0, 0.9, 0.8])
    assert outlier_score(two_backdoored) == pytest.approx(3.9)
    gap_further_down = torch.tensor([5.0, 4.9, 4.8, 4.7, 4.6, 0.0])
    assert outlier_score(gap_further_down) == pytest.approx(0.1, rel=1e-4)
    assert outlier_score(torch.tensor([5.0])) == 0.0


def test_log_odds_match_softmax_and_stay_finite() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    p = logits.double().softmax(1)
    assert torch.allclose(log_odds(logits), (p / (1 - p)).log().float(), atol=1e-5)
    far = log_odds(torch.tensor([[1e4, -1e4]]))
    assert far.tolist() == [[pytest.approx(34.5, abs=0.1), -35.0]]


def test_mean_over_others_skips_images_of_the_class() -> None:
    values = torch.tensor([[[1.0, 10.0], [3.0, 20.0]]])  # (1, N, K)
    assert mean_over_others(values, torch.tensor([0, 1])).tolist() == [[3.0, 10.0]]
    assert mean_over_others(values, torch.tensor([0, 0])).tolist() == [[0.0, 15.0]]
