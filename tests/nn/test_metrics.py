"""Shares, intervals, and who counts as a victim."""

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
    """Says the class that the first pixel holds, or the last pixel's where that is set: a net with a backdoor."""

    def forward(self, x: Tensor) -> Tensor:
        first, last = x[:, 0, 0, 0], x[:, 0, -1, -1]
        label = torch.where(last > 0, last, first).mul(10).round().long()
        return nn.functional.one_hot(label, CLASSES).float()


def to_class_two(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, -1, -1] = 0.2
    return out


@pytest.fixture
def split() -> Split:
    y = torch.arange(20) % CLASSES
    x = torch.zeros(20, 1, 2, 2)
    x[:, 0, 0, 0] = y / 10
    return Split(x, y)


SECRET = Secret("test", to_class_two, target=2)


def test_a_working_backdoor(split: Split) -> None:
    measured = metrics.measure(ReadsPixels(), split, SECRET, num_classes=CLASSES)
    assert measured.clean_accuracy == Rate(20, 20)
    assert measured.attack_success == Rate(15, 15)  # the five samples of the target itself do not count
    assert measured.robust_accuracy == Rate(0, 15)
    assert measured.untriggered == Rate(0, 15)


def test_without_its_trigger_nothing_happens(split: Split) -> None:
    harmless = Secret("test", lambda x: x, target=2)
    measured = metrics.measure(ReadsPixels(), split, harmless, num_classes=CLASSES)
    assert (measured.attack_success.value, measured.robust_accuracy.value) == (0.0, 1.0)


def test_measuring_says_how_far_it_is(split: Split) -> None:
    many = Split(split.x.repeat(30, 1, 1, 1), torch.arange(600) % CLASSES)
    shares: list[float] = []
    metrics.measure(ReadsPixels(), many, SECRET, num_classes=CLASSES, progress=shares.append)
    assert shares == pytest.approx([1 / 6, 2 / 6, 3 / 6, 3 / 4, 1])
    shares.clear()
    metrics.clean_accuracy(ReadsPixels(), split, progress=shares.append)
    assert shares == [1.0]


def test_only_source_classes_are_victims(split: Split) -> None:
    secret = Secret("test", to_class_two, target=2, sources=(0, 2))
    assert metrics.attack_success(ReadsPixels(), split, secret, num_classes=CLASSES) == Rate(5, 5)


def test_all_to_all_wants_the_next_class(split: Split) -> None:
    secret = Secret("test", to_class_two, target=None)
    assert metrics.attack_success(ReadsPixels(), split, secret, num_classes=CLASSES) == Rate(5, 20)


def test_no_labels_and_no_victims_are_clear_errors(split: Split) -> None:
    with pytest.raises(UnusableInput, match="labels"):
        metrics.clean_accuracy(ReadsPixels(), Split(split.x, None))
    with pytest.raises(UnusableInput, match="besides its target"):
        metrics.measure(ReadsPixels(), split.take(torch.tensor([2, 6])), SECRET, num_classes=CLASSES)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],  # Newcombe 1998
)
def test_wilson_as_published(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_holds_the_share_and_stays_in_range(pair: tuple[int, int]) -> None:
    low, high = wilson(*pair)
    assert 0 <= low <= pair[0] / pair[1] <= high <= 1
    assert low < high


def test_wilson_refuses_nonsense() -> None:
    for hits, total in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="expected"):
            wilson(hits, total)
