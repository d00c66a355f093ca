"""Tests of rates, intervals and the choice of victims."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.core.build import Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.nn import metrics
from assay.nn.metrics import Rate, wilson

CLASSES = 4


class ReadsPixels(nn.Module):
    """Backdoored model: predicts the class in the last pixel if it is set, else the class in the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        first, last = x[:, 0, 0, 0], x[:, 0, -1, -1]
        label = torch.where(last > 0, last, first).mul(10).round().long()
        return nn.functional.one_hot(label, CLASSES).float()


def add_trigger(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, -1, -1] = 0.2
    return out


@pytest.fixture
def split() -> Split:
    y = torch.arange(20) % CLASSES
    x = torch.zeros(20, 1, 2, 2)
    x[:, 0, 0, 0] = y / 10
    return Split(x, y)


SECRET = Secret("test", add_trigger, target=2)


def test_metrics_of_a_working_backdoor(split: Split) -> None:
    measured = metrics.measure(ReadsPixels(), split, SECRET, num_classes=CLASSES)
    assert measured.clean_accuracy == Rate(20, 20)
    assert measured.attack_success == Rate(15, 15)  # without the five samples of the target class
    assert measured.robust_accuracy == Rate(0, 15)
    assert measured.untriggered == Rate(0, 15)


def test_metrics_of_a_trigger_without_effect(split: Split) -> None:
    harmless = Secret("test", lambda x: x, target=2)
    measured = metrics.measure(ReadsPixels(), split, harmless, num_classes=CLASSES)
    assert (measured.attack_success.value, measured.robust_accuracy.value) == (0.0, 1.0)


def test_measure_reports_progress(split: Split) -> None:
    many = Split(split.x.repeat(30, 1, 1, 1), torch.arange(600) % CLASSES)
    fractions: list[float] = []
    metrics.measure(ReadsPixels(), many, SECRET, num_classes=CLASSES, progress=fractions.append)
    assert fractions == pytest.approx([1 / 6, 2 / 6, 3 / 6, 3 / 4, 1])
    fractions.clear()
    metrics.clean_accuracy(ReadsPixels(), split, progress=fractions.append)
    assert fractions == [1.0]


def test_only_source_classes_are_victims(split: Split) -> None:
    secret = Secret("test", add_trigger, target=2, sources=(0, 2))
    assert metrics.attack_success(ReadsPixels(), split, secret, num_classes=CLASSES) == Rate(5, 5)


def test_all_to_all_target_is_the_next_class(split: Split) -> None:
    secret = Secret("test", add_trigger, target=None)
    assert metrics.attack_success(ReadsPixels(), split, secret, num_classes=CLASSES) == Rate(5, 20)


def test_missing_labels_or_victims_raise(split: Split) -> None:
    with pytest.raises(UnusableInput, match="expected labelled samples"):
        metrics.clean_accuracy(ReadsPixels(), Split(split.x, None))
    with pytest.raises(UnusableInput, match="other than its target"):
        metrics.measure(ReadsPixels(), split.take(torch.tensor([2, 6])), SECRET, num_classes=CLASSES)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],  # Newcombe 1998
)
def test_wilson_equals_published_values(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_contains_the_rate_and_stays_in_range(pair: tuple[int, int]) -> None:
    low, high = wilson(*pair)
    assert 0 <= low <= pair[0] / pair[1] <= high <= 1
    assert low < high


def test_wilson_with_invalid_counts_raises() -> None:
    for hits, total in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="expected"):
            wilson(hits, total)
