"""Labels of the data against the classes of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.data.request import NO_LABELS, Source

Splits = Mapping[str, Split]


def align(
    splits: Splits,
    found: Source,
    num_classes: int | None,
    model_names: Sequence[str] | None,
    *,
    fewest: int = 2,
) -> tuple[Splits, tuple[str, ...], tuple[str, ...]]:
    """The splits with labels in the model's numbering, the names of all classes, and what was guessed, in sentences.

    Named classes that do not number as the model's are matched by name; ImageNet's 1,000 labels are shifted by one for
    a model of 1,001 classes whose first is "background". Raises where labels and model cannot belong together.
    """
    labels = [split.y for split in splits.values() if split.y is not None]
    if not labels:
        count = num_classes or len(found.class_names or ()) or 1
        return splits, _names(count, None, model_names), ()
    seen = torch.cat(labels).unique()
    names = found.class_names
    if len(seen) < fewest:
        if num_classes is not None and _is_no_class(found, model_names):
            note = f"no labels: the only folder ({_show(seen, names)}) is not taken for a class"
            return unlabelled(splits), _names(num_classes, None, model_names), (note,)
        raise UnusableInput(
            f"{found.name}: expected samples of at least two classes, came only class {_show(seen, names)}; "
            f"{NO_LABELS} if that is none"
        )
    if int(seen[0]) < 0:
        raise UnusableInput(f"{found.name}: expected labels from 0 on, came {int(seen[0])}")
    if names is not None and int(seen[-1]) >= len(names):
        raise UnusableInput(
            f"{found.name}: expected labels below {len(names)}, its number of classes, came {int(seen[-1])}"
        )
    if num_classes is None:
        return splits, names or tuple(map(str, range(int(seen[-1]) + 1))), ()

    model_names = model_names if model_names is not None and len(model_names) == num_classes else None
    mapping = _mapping(names, num_classes, model_names, int(seen[-1]))
    if mapping is None:
        _check(found, num_classes, int(seen[-1]))
        return splits, _names(num_classes, names, model_names), _counted(found)
    moved = {name: split if split.y is None else Split(split.x, mapping[split.y]) for name, split in splits.items()}
    return moved, _names(num_classes, None, model_names), ()


def unlabelled(splits: Splits) -> Splits:
    """The splits without their labels."""
    return {name: Split(split.x, None) for name, split in splits.items()}


def _mapping(
    names: tuple[str, ...] | None, num_classes: int, model_names: Sequence[str] | None, largest: int
) -> torch.Tensor | None:
    """The model's label of each label of the data; None where they are the same."""
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


def _check(found: Source, num_classes: int, largest: int) -> None:
    names = found.class_names
    if names is not None and len(names) != num_classes:
        hint = (
            f"name its folders as the model names its classes or by their numbers, or {NO_LABELS} if they are none"
            if found.named_by_folder
            else ("give the data that the model was trained for")
        )
        raise UnusableInput(
            f"{found.name}: expected the model's {num_classes} classes, the data has {len(names)}; {hint}"
        )
    if largest >= num_classes:
        raise UnusableInput(
            f"{found.name}: expected labels below {num_classes}, the model's number of classes, came {largest}; "
            f"give the data that the model was trained for, or {NO_LABELS} if those are no classes"
        )


def _is_no_class(found: Source, model_names: Sequence[str] | None) -> bool:
    """Whether the data is one folder of pictures whose name is none of the model's classes."""
    if not found.named_by_folder or len(found.class_names or ()) != 1:
        return False
    known = {alias for name in model_names or () for alias in _aliases(name)}
    return not known.intersection(alias for name in found.class_names or () for alias in _aliases(name))


def _counted(found: Source) -> tuple[str, ...]:
    """What is said where folders got the model's numbers only by the order of their names."""
    if not found.named_by_folder or found.class_names is None:
        return ()
    first, last = found.class_names[0], found.class_names[-1]
    count = len(found.class_names)
    return (
        f"labels are the {count} folders in alphabetical order, {first} as class 0 to {last} as class {count - 1}; "
        f"{NO_LABELS} if they are no classes",
    )


def _names(count: int, names: tuple[str, ...] | None, model_names: Sequence[str] | None) -> tuple[str, ...]:
    for candidate in (names, model_names):
        if candidate is not None and len(candidate) == count:
            return tuple(candidate)
    return tuple(map(str, range(count)))


def _aliases(name: str) -> list[str]:
    """A class name and, for lists of synonyms as ImageNet has them, each of those."""
    whole = name.strip().lower().replace("_", " ")
    return [whole, *(part.strip() for part in whole.split(",") if part.strip() != whole)]


def _show(seen: torch.Tensor, names: tuple[str, ...] | None) -> str:
    label = int(seen[0])
    return names[label] if names is not None and 0 <= label < len(names) else str(label)
