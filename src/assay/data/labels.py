"""Alignment of the data's labels with the model's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.request import NO_LABELS, Source

Splits = Mapping[str, Split]
Aligned = tuple[Splits, tuple[str, ...], tuple[str, ...]]


def align(
    splits: Splits,
    found: Source,
    num_classes: int | None,
    model_names: Sequence[str] | None,
    *,
    fewest: int = 2,
) -> Aligned:
    """Renumber the labels as the model numbers its classes.

    Classes with names are matched by name if their numbers differ from the model's. ImageNet's 1,000 labels are
    shifted by one for a model of 1,001 classes with "background" as the first.

    Args:
        splits: Splits by name.
        found: Output of the reader, for its class names.
        num_classes: Number of the model's classes, or None.
        model_names: Names of the model's classes, or None.
        fewest: Smallest number of classes among the labels.

    Returns:
        The splits, the names of all classes, and the guesses in sentences.

    Raises:
        UnusableInput: The labels cannot belong to the model.
    """
    labels = [split.y for split in splits.values() if split.y is not None]
    if not labels:
        count = num_classes or len(found.class_names or ()) or 1
        return splits, _class_names(count, None, model_names), ()
    seen = torch.cat(labels).unique()
    if len(seen) < fewest:
        return _drop_only_class(splits, found, num_classes, model_names, seen)
    _check_range(found, seen)
    names, largest = found.class_names, int(seen[-1])
    if num_classes is None:
        return splits, names or tuple(map(str, range(largest + 1))), ()
    model_names = model_names if model_names is not None and len(model_names) == num_classes else None
    mapping = _mapping(names, num_classes, model_names, largest)
    if mapping is None:
        _check_count(found, num_classes, largest)
        return splits, _class_names(num_classes, names, model_names), _alphabetical_note(found)
    moved = {name: split if split.y is None else Split(split.x, mapping[split.y]) for name, split in splits.items()}
    return moved, _class_names(num_classes, None, model_names), ()


def drop_labels(splits: Splits) -> Splits:
    """Return the splits without their labels."""
    return {name: Split(split.x, None) for name, split in splits.items()}


def _drop_only_class(
    splits: Splits, found: Source, num_classes: int | None, model_names: Sequence[str] | None, seen: torch.Tensor
) -> Aligned:
    """Drop the labels if the only folder is not one of the model's classes; raise UnusableInput otherwise."""
    label = int(seen[0])
    names = found.class_names
    shown = names[label] if names is not None and 0 <= label < len(names) else str(label)
    if num_classes is not None and _is_no_class(found, model_names):
        note = f"no labels: the only folder ({shown}) is not used as a class"
        return drop_labels(splits), _class_names(num_classes, None, model_names), (note,)
    raise UnusableInput(
        f"{found.name}: expected samples of at least two classes, got only class {shown}. "
        f"Fix if it is not a class: {NO_LABELS}."
    )


def _check_range(found: Source, seen: torch.Tensor) -> None:
    smallest, largest = int(seen[0]), int(seen[-1])
    if smallest < 0:
        raise UnusableInput(f"{found.name}: expected labels from 0 on, got {smallest}")
    if found.class_names is not None and largest >= len(found.class_names):
        raise UnusableInput(
            f"{found.name}: expected labels below {len(found.class_names)}, its number of classes, got {largest}"
        )


def _mapping(
    names: tuple[str, ...] | None, num_classes: int, model_names: Sequence[str] | None, largest: int
) -> torch.Tensor | None:
    """Return the model's label for each label of the data; None if they are the same."""
    if model_names is None:
        return None
    if names is not None:
        numbers = {alias: label for label, name in enumerate(model_names) for alias in _aliases(name)}
        matched = [next((numbers[a] for a in _aliases(name) if a in numbers), None) for name in names]
        if all(label is not None for label in matched) and len(set(matched)) == len(matched):
            return torch.tensor([label for label in matched if label is not None])
    count = len(names) if names is not None else largest + 1
    if num_classes == 1001 and model_names[0].lower() == "background" and count <= 1000:
        return torch.arange(1, 1001)
    return None


def _check_count(found: Source, num_classes: int, largest: int) -> None:
    names = found.class_names
    if names is not None and len(names) != num_classes:
        fix = (
            f"name its folders as the model names its classes or by their numbers, or {NO_LABELS}"
            if found.named_by_folder
            else "give data with the model's own classes"
        )
        raise UnusableInput(
            f"{found.name}: expected the model's {num_classes} classes, the data has {len(names)}. Fix: {fix}."
        )
    if largest >= num_classes:
        raise UnusableInput(
            f"{found.name}: expected labels below {num_classes}, the model's number of classes, got {largest}. "
            f"Fix: give data with the model's own classes, or {NO_LABELS}."
        )


def _is_no_class(found: Source, model_names: Sequence[str] | None) -> bool:
    """Return True if the data is one folder of images, and the folder's name is not a class of the model."""
    if not found.named_by_folder or len(found.class_names or ()) != 1:
        return False
    known = {alias for name in model_names or () for alias in _aliases(name)}
    return not known.intersection(alias for name in found.class_names or () for alias in _aliases(name))


def _alphabetical_note(found: Source) -> tuple[str, ...]:
    """Return a note if folders got the model's numbers by the alphabetical order of their names."""
    if not found.named_by_folder or found.class_names is None:
        return ()
    first, last = found.class_names[0], found.class_names[-1]
    count = len(found.class_names)
    return (
        f"labels are the {count} folders in alphabetical order, {first} as class 0 to {last} as class {count - 1}. "
        f"Fix if they are not classes: {NO_LABELS}",
    )


def _class_names(count: int, names: tuple[str, ...] | None, model_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the data's or the model's names if their number is ``count``, else numbers."""
    for candidate in (names, model_names):
        if candidate is not None and len(candidate) == count:
            return tuple(candidate)
    return tuple(map(str, range(count)))


def _aliases(name: str) -> list[str]:
    """Return a class name and, for a list of synonyms as in ImageNet, each of them."""
    whole = name.strip().lower().replace("_", " ")
    return [whole, *(part.strip() for part in whole.split(",") if part.strip() != whole)]
