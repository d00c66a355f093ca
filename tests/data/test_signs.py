"""Tests of procedural traffic signs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.synthetic.signs import MAX_CLASSES, sign, signs


def test_all_classes_are_distinct() -> None:
    assert len({sign(label) for label in range(MAX_CLASSES)}) == MAX_CLASSES


def test_neighboring_classes_differ_in_shape_color_and_glyph() -> None:
    for label in range(7):
        a, b = sign(label), sign(label + 1)
        assert a.shape != b.shape
        assert a.color != b.color
        assert a.glyph != b.glyph


@settings(max_examples=15, deadline=None)
@given(classes=st.integers(2, 40), size=st.integers(8, 70), per_class=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_any_class_count_and_size_gives_balanced_splits(classes: int, size: int, per_class: int, seed: int) -> None:
    task = signs(classes, size=size, per_class=per_class, seed=seed)
    assert list(task.splits) == ["train", "calibration", "validation", "test"]
    assert task.num_classes == classes
    for split in task.splits.values():
        assert split.y is not None
        assert split.x.shape == (len(split.y), 3, size, size)
        assert split.x.dtype == torch.float32
        assert 0 <= split.x.min() <= split.x.max() <= 1
        assert (split.y.bincount(minlength=classes) == len(split.y) // classes).all()


def test_seed_decides_the_images() -> None:
    first, again, other = (signs(3, per_class=5, seed=seed).splits for seed in (4, 4, 5))
    assert torch.equal(first["train"].x, again["train"].x)
    assert not torch.equal(first["train"].x, other["train"].x)
    assert not torch.equal(first["calibration"].x[:3], first["test"].x[:3])


def test_two_thousand_classes_have_distinct_names() -> None:
    task = signs(2000, size=16, per_class=4)
    assert task.num_classes == 2000
    assert len(set(task.class_names)) == 2000


@pytest.mark.parametrize(("classes", "size"), [(1, 32), (2001, 32), (10, 4), (10, 5000)])
def test_unusable_class_count_or_size_is_refused(classes: int, size: int) -> None:
    with pytest.raises(UnusableInput, match="expected"):
        signs(classes, size=size)


def test_small_model_learns_the_classes() -> None:
    torch.manual_seed(0)
    task = signs(10, per_class=400)
    train, test = task.splits["train"], task.splits["test"]
    model = _small_convnet(10)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(3):
        order = Split(train.x, train.y).take(torch.randperm(len(train)))
        for batch in order.batches(32):
            assert batch.y is not None
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.x), batch.y).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(test.x).argmax(1) == test.y).float().mean()
    assert accuracy > 0.95


def _small_convnet(classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, classes))
