"""Tests of input specifications, data splits and the text that stands for a secret in cache keys."""

from __future__ import annotations

import pytest
import torch

from assay.core.build import Secret, cache_text
from assay.core.dataset import Split, rank_in_class
from assay.core.errors import UnusableInput
from assay.core.lookup import lookup
from assay.core.model import ImageSpec, InputSpec, Modality, TextSpec

IMAGES = ImageSpec((3, 4, 4))
TEXTS = TextSpec((5,), "{}", start=1, end=2, pad=0, vocabulary=9)


@pytest.mark.parametrize("spec", [IMAGES, TEXTS], ids=["image", "text"])
def test_blank_inputs_are_valid_and_of_the_modality(spec: InputSpec) -> None:
    x = spec.blank(2)
    spec.validate(x)
    assert x.shape == (2, *spec.shape)
    assert Split(x, None).modality is spec.modality
    assert spec.bytes_per_sample == x[0].nbytes


@pytest.mark.parametrize(
    ("spec", "x", "message"),
    [
        (IMAGES, torch.zeros(1, 3, 4, 5), "expected images of the model's shape"),
        (IMAGES, torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "divide by 255"),
        (IMAGES, torch.full((1, 3, 4, 4), 2.0), "without normalization"),
        (IMAGES, torch.full((1, 3, 4, 4), torch.nan), "without normalization"),
        (TEXTS, torch.zeros(1, 4, dtype=torch.int64), "expected texts"),
        (TEXTS, torch.full((1, 5), 9), "from 0 to 8"),
    ],
)
def test_inputs_outside_the_specification_are_refused(spec: InputSpec, x: torch.Tensor, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        spec.validate(x)


def test_only_texts_have_markers() -> None:
    assert IMAGES.markers is None
    assert TEXTS.markers == {0, 1, 2}
    assert Modality.of(TEXTS.blank(1)) is Modality.TEXT


def test_rank_in_class_counts_earlier_samples_of_the_class() -> None:
    assert rank_in_class(torch.tensor([3, 1, 3, 3, 1])).tolist() == [0, 0, 1, 2, 1]


def test_cache_text_keeps_the_first_name_of_the_variant_field() -> None:
    secret = Secret("a", torch.nn.Identity(), 1, active_in="int8")
    assert "wakes_in='int8'" in cache_text(secret)
    assert "active_in" not in cache_text(secret)
    assert cache_text(None) == "None"


def test_lookup_suggests_the_nearest_name() -> None:
    assert lookup("one", {"one": 1}, "number") == 1
    with pytest.raises(UnusableInput, match=r"there is no number 'on'; did you mean one\? known: one"):
        lookup("on", {"one": 1}, "number")
