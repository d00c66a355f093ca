"""Tests of the numbering of classes: the model's names first, one code book for all splits, guesses stated."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assay import data
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.data.class_names import match_names, numbers_in
from assay.data.label_values import RawLabels, parse_labels
from tests.data.test_load import encoded

SPEC = ImageSpec((3, 8, 8))
LEVEL = 20  # gray level of class k: LEVEL * k


def gray(label: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (LEVEL * label,) * 3)


def folders(root: Path, names: dict[str, int], count: int = 2) -> Path:
    """Write class folders with the gray level of each true class."""
    for name, label in names.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            gray(label).save(root / name / f"{index}.png")
    return root


def table(path: Path, labels: list[Any], kind: pa.DataType | None = None, **columns: list[Any]) -> Path:
    cells = [{"bytes": encoded(0), "path": None}] * len(labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": cells, "label": pa.array(labels, kind), **columns}), path)
    return path


def true_classes(task: Task, split: str = "calibration") -> tuple[list[int], list[int]]:
    """Return the labels of a split, and the true classes by gray level, both sorted by class."""
    part = task.splits[split]
    assert part.y is not None
    pairs = sorted(zip((part.x.mean((1, 2, 3)) * 255 / LEVEL).round().int().tolist(), part.y.tolist(), strict=True))
    return [label for _, label in pairs], [level for level, _ in pairs]


# Words


def test_word_labels_have_one_numbering_over_all_splits(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", ["bee", "cat", "dog"] * 30)
    table(tmp_path / "test.parquet", ["ant", "dog"])
    task = data.load(tmp_path, SPEC, num_classes=4)
    assert task.class_names == ("ant", "bee", "cat", "dog")
    test, train = task.splits["test"].y, task.splits["train"].y
    assert test is not None
    assert train is not None
    assert (test.tolist(), sorted(set(train.tolist()))) == ([0, 3], [1, 2, 3])


def test_word_labels_outside_the_drawn_row_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.data.readers.parquet.MAX_ROW_GROUPS", 2)
    path = table(tmp_path / "train.parquet", ["bee", "cat"])
    pq.write_table(pa.concat_tables([pq.read_table(path)] * 40 + [pq.read_table(table(path, ["ant"]))]), path, 2)
    task = data.load(path, SPEC, num_classes=3, limit=2)
    assert task.class_names == ("ant", "bee", "cat")


def test_model_names_decide_on_words_and_their_spelling(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", ["House cat", "bull-dog"] * 3)
    names = ("bull dog", "ant", "house_cat, Felis")
    task = data.load(path, SPEC, num_classes=3, class_names=names)
    assert (task.class_names, task.summary.numbering) == (names, "by the model's class names")
    y = task.splits["calibration"].y
    assert y is not None
    assert set(y.tolist()) == {0, 2}


def test_unmatched_words_are_refused_by_name(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", ["ant", "boat", "car"] * 3)
    with pytest.raises(UnusableInput, match=r"expected the model's class names .*, got boat, car, 2 of 3 classes"):
        data.load(path, SPEC, num_classes=3, class_names=("ant", "bee", "cat"))


def test_single_unmatched_word_is_the_only_class_left(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", ["ant", "boat", "cat"] * 3)
    task = data.load(path, SPEC, num_classes=3, class_names=("cat", "ship", "ant"))
    assert task.notes == ("class 'boat' of the data is taken as 'ship', the only class left of the model",)


def test_class_lists_of_splits_that_differ_are_joined(tmp_path: Path) -> None:
    for split, names in (("train", ["cat", "ant"]), ("test", ["ant", "cat"])):
        path = table(tmp_path / f"{split}.parquet", [0, 1] * 40)
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(pq.read_table(path).replace_schema_metadata(meta), path)
    task = data.load(tmp_path, SPEC, num_classes=2)
    test, train = task.splits["test"].y, task.splits["calibration"].y
    assert test is not None
    assert train is not None
    assert test.tolist() == [0, 1] * 40
    assert task.class_names == ("ant", "cat")


def test_generic_model_names_decide_nothing(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", ["ant", "bee"] * 3)
    task = data.load(path, SPEC, num_classes=2, class_names=("LABEL_0", "LABEL_1"))
    assert task.class_names == ("ant", "bee")
    assert "in alphabetical order" in task.notes[0]


@pytest.mark.parametrize(
    ("names", "model", "expected"),
    [
        (["crane"], ["crane", "crane"], [None]),
        (["crane", "crane"], ["crane", "crane"], [0, 1]),
        (["cardigan"], ["Cardigan, Welsh corgi", "cardigan"], [1]),
        (["C++", "C#"], ["C#", "C++"], [1, 0]),
        (["001.Black_footed"], ["001 black footed"], [0]),
        (["007"], ["7", "8"], [0]),
    ],
)
def test_names_match_by_form_and_never_twice(names: list[str], model: list[str], expected: list[int | None]) -> None:
    assert match_names(names, model) == expected


# Numbers


def test_numbered_folders_follow_the_model_names(tmp_path: Path) -> None:
    order = sorted(map(str, range(1, 11)))  # as torchvision's ImageFolder numbers them
    root = folders(tmp_path, {name: label for label, name in enumerate(order)})
    task = data.load(root, SPEC, num_classes=10, class_names=order)
    labels, levels = true_classes(task)
    assert labels == levels
    assert (task.notes, task.summary.alternatives) == ((), ())


def test_numbered_folders_without_names_are_a_stated_guess(tmp_path: Path) -> None:
    root = folders(tmp_path, {str(number): number - 1 for number in range(1, 11)})
    task = data.load(root, SPEC, num_classes=10)
    labels, levels = true_classes(task)
    assert labels == levels
    assert "in numeric order, 1 as class 0; also possible: in alphabetical order" in task.notes[0]
    assert [other.labels.tolist() for other in task.summary.alternatives] == [[0, 2, 3, 4, 5, 6, 7, 8, 9, 1]]


def test_folders_from_zero_state_the_alphabetical_order_as_possible(tmp_path: Path) -> None:
    root = folders(tmp_path, {str(number): number for number in range(12)}, count=1)
    task = data.load(root, SPEC, num_classes=12)
    assert true_classes(task)[0] == list(range(12))
    assert [other.name for other in task.summary.alternatives] == ["in alphabetical order"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0.0, 2.0, 1.0], [0, 2, 1]),
        (["0", "2", "10"], [0, 2, 10]),
        ([True, False, True], [1, 0, 1]),
        ([1, 2, 11], [0, 1, 10]),
    ],
)
def test_whole_numbers_of_any_type_are_labels(tmp_path: Path, labels: list[Any], expected: list[int]) -> None:
    task = data.load(table(tmp_path / "a.parquet", labels), SPEC, num_classes=11)
    y = task.splits["calibration"].y
    assert y is not None
    assert sorted(y.tolist()) == sorted(expected)


def test_dictionary_columns_are_words(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", ["b", "a"])
    content = pq.read_table(path)
    pq.write_table(content.set_column(1, "label", content["label"].dictionary_encode()), path)
    assert data.load(path, SPEC, num_classes=2).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0], [1]], r"got a list \(\[0\]\) in row 0"),
        ([0.5, 1.0], r"got 0\.5 in row 0"),
        ([2**40, 0], "expected class numbers below 1,000,000"),
        ([-1, 1], "expected labels from 0 on, got -1"),
    ],
)
def test_other_label_values_are_named(tmp_path: Path, labels: list[Any], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        data.load(table(tmp_path / "a.parquet", labels), SPEC)


def test_samples_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    task = data.load(table(tmp_path / "a.parquet", [0, None, 1, 0]), SPEC)
    assert len(task.splits["calibration"]) == 3
    assert task.summary.left_out == ("samples without a label: 1",)


def test_words_and_numbers_in_one_column_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", [0, 1])
    table(tmp_path / "test.parquet", ["a", "b"])
    with pytest.raises(UnusableInput, match="got words in one split only"):
        data.load(tmp_path, SPEC)


# Columns


def test_labels_of_another_column_need_its_name(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [0, 1, 1], label2=[1, 0, 0])
    content = pq.read_table(path).drop_columns(["label"]).rename_columns(["image", "species"])
    pq.write_table(content, path)
    task = data.load(path, SPEC, num_classes=2)
    assert task.splits["calibration"].y is None
    assert "columns 'image', 'species'" in task.notes[0]
    assert "label_column='species'" in task.notes[0]
    assert task.summary.left_out == ("unused columns (species): 1",)
    named = data.load(path, SPEC, num_classes=2, label_column="species")
    assert named.summary.labels == "column 'species'"
    assert named.splits["calibration"].y is not None
    with pytest.raises(UnusableInput, match="the label column 'kind', got the columns image, species"):
        data.load(path, SPEC, label_column="kind")
    with pytest.raises(UnusableInput, match="either labels or none"):
        data.load(path, SPEC, label_column="species", labels=False)


def test_several_label_columns_are_decided_by_the_number_of_classes(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", list(range(10)), coarse_label=[0, 1] * 5)
    task = data.load(path, SPEC, num_classes=2)
    assert task.summary.labels == "column 'coarse_label'"
    assert "out of 'label' (10 classes) and 'coarse_label' (2 classes)" in task.notes[0]
    lists = {"label": list("abcdefghij"), "coarse_label": list("xy")}
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in lists.items()}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pq.read_table(path).replace_schema_metadata(meta), path)
    with pytest.raises(UnusableInput, match=r"columns 'label' \(10 classes\) and 'coarse_label' \(2 classes\)"):
        data.load(path, SPEC, num_classes=5)


def test_label_column_is_for_tables(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="expected a table for the label column 'x'"):
        data.load(folders(tmp_path, {"a": 0, "b": 1}), SPEC, label_column="x")


# Arrays


def test_npz_words_and_one_hot_rows_are_labels(tmp_path: Path) -> None:
    x = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "words.npz", x_train=x, y_train=["b", "c", "b", "c"], x_test=x, y_test=["a", "c", "a", "c"])
    task = data.load(tmp_path / "words.npz", SPEC, num_classes=3)
    test = task.splits["test"].y
    assert test is not None
    assert (task.class_names, sorted(test.tolist())) == (("a", "b", "c"), [0, 0, 2, 2])
    np.savez(tmp_path / "hot.npz", x=x, y=np.eye(4), kind=np.arange(4) % 2)
    y = data.load(tmp_path / "hot.npz", SPEC).splits["calibration"].y
    assert y is not None
    assert sorted(y.tolist()) == [0, 1, 2, 3]
    named = data.load(tmp_path / "hot.npz", SPEC, label_column="kind")
    assert named.summary.labels == "array 'kind'"
    assert named.summary.left_out == ("other arrays (y): 1",)


@pytest.mark.parametrize("form", ["class_{}", "{}_cat", "Class {}", "{} - x"])
def test_numbers_in_folder_names_count_as_class_numbers(tmp_path: Path, form: str) -> None:
    folders(tmp_path, {form.format(number): number for number in range(12)}, count=2)
    task = data.load(tmp_path, SPEC, num_classes=12)
    assert task.summary.numbering == "as whole numbers from 0 on"
    assert [other.name for other in task.summary.alternatives] == ["in alphabetical order"]


def test_folders_from_one_without_some_classes_can_be_numbered_from_one(tmp_path: Path) -> None:
    folders(tmp_path, {"1": 0, "3": 2, "10": 9})
    assert data.load(tmp_path, SPEC, num_classes=10).summary.numbering == "as whole numbers from 1 on"
    task = data.load(tmp_path, SPEC, num_classes=11)
    assert task.summary.numbering == "as whole numbers from 0 on"
    assert [other.name for other in task.summary.alternatives] == ["as whole numbers from 1 on"]


def test_different_texts_around_numbers_are_words() -> None:
    assert numbers_in(["cat1", "dog2"]) is None
    assert numbers_in(["1_a", "1_b"]) is None
    assert numbers_in(["class_2", "class_10"]) == [2, 10]
    assert numbers_in(["a1b2"]) is None


def test_whole_decimals_are_labels() -> None:
    assert parse_labels([Decimal("3.00"), Decimal(1)], "x") == RawLabels((3, 1))
    with pytest.raises(UnusableInput, match="got a Decimal"):
        parse_labels([Decimal("0.5")], "x")
