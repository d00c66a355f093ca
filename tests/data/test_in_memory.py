"""Tests of data in memory: accepted types, number of samples read, and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.data.readers.in_memory import read_in_memory, read_samples

X, Y = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 4


def read(data: object, limit: int = 100) -> Split:
    split = read_in_memory(data, limit=limit, seed=0)
    assert split.x.dtype == torch.float32
    assert split.y is None or split.y.dtype == torch.int64
    return split


FROZEN = X.numpy().copy()
FROZEN.flags.writeable = False

SAME: dict[str, tuple[Any, bool]] = {
    "pair": ((X, Y), True),
    "list": ([X, Y], True),
    "split": (Split(X, Y), True),
    "without labels": ((X, None), False),
    "bare tensor": (X, False),
    "bare array": (X.numpy(), False),
    "arrays": ((X.numpy(), Y.numpy()), True),
    "read-only array": (FROZEN, False),
    "flipped array": ((np.flip(np.flip(X.numpy(), 0).copy(), 0), Y), True),
    "doubles": ((X.double().numpy(), Y), True),
    "other byte order": ((X.numpy().astype(">f4"), Y.numpy().astype(">i2")), True),
    "int32 labels": ((X, Y.int()), True),
    "uint8 labels": ((X, Y.to(torch.uint8)), True),
    "listed labels": ((X, Y.tolist()), True),
    "whole float labels": ((X, Y.double()), True),
    "one-hot labels": ((X, torch.nn.functional.one_hot(Y)), True),
    "needing gradients": ((X.clone().requires_grad_(), Y), True),
    "loader": (DataLoader(TensorDataset(X, Y), batch_size=6), True),
    "loader of images": (DataLoader(list(X), batch_size=6), False),
    "loader of dicts": (DataLoader([{"image": x, "label": y} for x, y in zip(X, Y, strict=True)], batch_size=6), True),
    "dict of arrays": ({"x": X.numpy(), "y": Y.numpy()}, True),
}


@pytest.mark.parametrize(("data", "labelled"), SAME.values(), ids=SAME)
def test_all_types_give_the_same_samples(data: Any, labelled: bool) -> None:
    split = read(data)
    assert torch.equal(split.x, X)
    assert not split.x.requires_grad
    assert (split.y is not None) == labelled
    assert split.y is None or torch.equal(split.y, Y)


class Counting(Dataset[Any]):
    """Data set, sorted by class, that counts its reads."""

    def __init__(self, count: int = 1000) -> None:
        self.reads = 0
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= self.count:
            raise IndexError
        self.reads += 1
        return torch.full((3, 4, 4), index / self.count), index * 4 // self.count


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[np.ndarray, np.int32]]:
        for index in range(10**9):
            yield np.full((3, 4, 4), 0.5), np.int32(index % 3)


def test_only_requested_samples_are_read() -> None:
    data = Counting()
    split = read(data, 40)
    assert (len(split), data.reads) == (40, 40)
    assert split.y is not None
    assert set(split.y.tolist()) == {0, 1, 2, 3}, "a draw over the whole data set"
    loaded = read(DataLoader(data, batch_size=16, shuffle=True), 40)
    assert (len(loaded), data.reads) == (40, 40 + 48)
    assert len(read(Endless(), 40)) == len(read(DataLoader(Endless(), batch_size=16), 40)) == 40


def test_seed_decides_the_samples_and_torch_state_stays() -> None:
    loader = DataLoader(Counting(), batch_size=16, shuffle=True)
    state = torch.get_rng_state()
    first, second = read_in_memory(loader, limit=8, seed=1), read_in_memory(loader, limit=8, seed=1)
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, read_in_memory(loader, limit=8, seed=2).x)
    assert torch.equal(torch.get_rng_state(), state)


class Failing(Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise OSError("disk on fire\nand more")


class Odd(Dataset[Any]):
    """Data set of three samples, each of them ``item``."""

    def __init__(self, item: object) -> None:
        self.item = item

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> object:
        return self.item


UNUSABLE: dict[str, tuple[Any, str]] = {
    "a number": (7, "got a int"),
    "one of a pair": ([X], "got a list of 1"),
    "a triple": ((X, Y, Y), "got a tuple of 3"),
    "text labels": ((X, ["ant"] * 20), "labels as a list of whole numbers"),
    "object array": (np.array([None, "a"], dtype=object), "array of object"),
    "labels by name": ((X, {"y": Y}), "got a dict"),
    "other keys": (Odd({"pixels": X[0]}), "with the keys pixels"),
    "words as labels": (Odd({"image": X[0], "label": "cat"}), "whole numbers, got the text 'cat'"),
    "no tensors": (Odd(("an image", 1)), "a Dataset by its transform"),
    "no samples": (Counting(0), "without samples"),
    "failing": (Failing(), "OSError: disk on fire"),
    "sorted": (DataLoader(Counting(), batch_size=16), "shuffle=True"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_data_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(UnusableInput) as error:
        read_in_memory(data, limit=32, seed=0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


SPEC = ImageSpec((3, 4, 4))
LEVELS = (X * 255).round().byte()
PILLOW = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in LEVELS]


class Table:
    """Map-style data set of another library."""

    def __len__(self) -> int:
        return len(PILLOW)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": PILLOW[index], "fine": int(Y[index]), "other": 7}


CONVERTED: dict[str, tuple[Any, str | None]] = {
    "uint8": ((LEVELS, Y), None),
    "uint8 array of channels last": ((LEVELS.permute(0, 2, 3, 1).numpy(), Y), None),
    "list of dicts": ([{"image": x, "label": int(y)} for x, y in zip(PILLOW, Y, strict=True)], None),
    "list of pairs": ([(x, int(y)) for x, y in zip(PILLOW, Y, strict=True)], None),
    "list of pillow images": (PILLOW, None),
    "other library": (Table(), "fine"),
}


@pytest.mark.parametrize(("data", "column"), CONVERTED.values(), ids=CONVERTED)
def test_stored_forms_of_images_become_inputs(data: Any, column: str | None) -> None:
    split, _ = read_samples(data, SPEC, limit=100, seed=0, label_column=column)
    SPEC.validate(split.x)
    order = range(20)
    if not isinstance(data, tuple):  # a draw
        order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.equal(split.x, LEVELS[list(order)].float() / 255)
    assert split.y is None or torch.equal(split.y, Y[list(order)])
    assert (split.y is None) == (data is PILLOW)


def test_pillow_images_are_resized_and_conversions_noted() -> None:
    large = [Image.new("RGBA", (40, 20), (200, 0, 0, 9)), Image.new("RGBA", (20, 40), (200, 0, 0, 9))]
    split, notes = read_samples(large, SPEC, limit=9, seed=0)
    assert split.x.shape == (2, 3, 4, 4)
    assert notes == ("2 images have an alpha channel: transparency is ignored",)
    _, notes = read_samples(LEVELS.permute(0, 2, 3, 1), SPEC, limit=9, seed=0)
    assert [note.split()[0] for note in notes] == ["uint8", "images"]


def test_missing_label_key_names_the_keys() -> None:
    with pytest.raises(UnusableInput, match="under the key 'coarse', got the keys image, fine, other"):
        read_samples(Table(), SPEC, limit=9, seed=0, label_column="coarse")
