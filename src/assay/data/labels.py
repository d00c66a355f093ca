"""Alignment of the data's labels with the model's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.core.dataset import Numbering, Split
from assay.core.errors import UnusableInput
from assay.data.class_names import are_generic, as_numbers, match_names, numbers_in
from assay.data.request import MAX_CLASSES, NO_LABELS, NamesFrom, Source

Splits = Mapping[str, Split]

OWN_NUMBERS = "as whole numbers from 0 on"
BY_NAMES = "by the model's class names"
ALPHABETICAL = "in alphabetical order"
FROM_ONE = "as whole numbers from 1 on"

# Largest number of names in a message.
SHOWN_NAMES = 4


@dataclass(frozen=True)
class Alignment:
    """Splits with the model's labels, and the choices behind them."""

    splits: Splits
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # guesses, in sentences
    numbering: str = ""  # in words; empty: no labels
    alternatives: tuple[Numbering, ...] = ()  # if the numbering is a guess
    unconfirmed: bool = False  # fewer classes than the model's, without a match of names


@dataclass(frozen=True)
class _Candidate:
    """One possible numbering: the model's label of each label of the data, -1 for none."""

    name: str
    labels: Tensor  # (D,) int64
    note: str = ""


def align(
    splits: Splits,
    found: Source,
    num_classes: int | None,
    model_names: Sequence[str] | None,
    *,
    fewest: int = 2,
    partial: bool = False,
) -> Alignment:
    """Renumber the labels as the model numbers its classes.

    The model's class names decide if the data's classes match them. Other numberings are guesses: the first possible
    one is used, and the others are returned for a comparison of accuracies. ImageNet's 1,000 labels are shifted by one
    for a model of 1,001 classes with "background" as the first.

    Args:
        splits: Splits by name.
        found: Output of the reader, for its class names.
        num_classes: Number of the model's classes, or None.
        model_names: Names of the model's classes, or None.
        fewest: Smallest number of classes among the labels.
        partial: True to number fewer words or folders than classes of the model in alphabetical order.

    Raises:
        UnusableInput: The labels cannot belong to the model.
    """
    labels = [split.y for split in splits.values() if split.y is not None]
    if model_names is not None and (len(model_names) != num_classes or are_generic(model_names)):
        model_names = None
    if not labels:
        count = num_classes or len(found.class_names or ()) or 1
        return Alignment(splits, _class_names(count, None, model_names))
    seen = torch.cat(labels).unique()
    if len(seen) < fewest:
        return _drop_only_class(splits, found, num_classes, model_names, seen)
    _check_range(found, seen)
    if num_classes is None:
        names = found.class_names or tuple(map(str, range(int(seen[-1]) + 1)))
        return Alignment(splits, names, (), OWN_NUMBERS if found.names_from is NamesFrom.DATA else ALPHABETICAL)
    candidates = _candidates(found, seen, num_classes, model_names)
    if not candidates and partial and _has_fewer_words(found, num_classes, model_names):
        guess = (_Candidate(ALPHABETICAL, torch.arange(len(found.class_names or ()))),)
        return replace(_renumber(splits, found, seen, guess, (num_classes, model_names)), unconfirmed=True)
    if not candidates:
        raise _count_error(found, num_classes, int(seen[-1]))
    return _renumber(splits, found, seen, candidates, (num_classes, model_names))


def _has_fewer_words(found: Source, num_classes: int, model_names: Sequence[str] | None) -> bool:
    """Return True for fewer words or folders than the model's classes, if the model has no names."""
    names = found.class_names
    if names is None or model_names is not None or found.names_from is NamesFrom.DATA:
        return False
    return len(names) < num_classes and numbers_in(names) is None


def drop_labels(splits: Splits) -> Splits:
    """Return the splits without their labels."""
    return {name: Split(split.x, None) for name, split in splits.items()}


def _renumber(
    splits: Splits,
    found: Source,
    seen: Tensor,
    candidates: Sequence[_Candidate],
    model: tuple[int, Sequence[str] | None],
) -> Alignment:
    """Return the splits with the labels of the first candidate.

    Args:
        splits: Splits by name.
        found: Output of the reader.
        seen: Labels of the data with samples.
        candidates: Possible numberings, the most likely one first.
        model: Number and names of the model's classes.
    """
    num_classes, model_names = model
    first, *others = candidates
    alternatives = []
    for other in others:
        labels = torch.full((num_classes,), -1)
        labels[first.labels[seen]] = other.labels[seen]
        alternatives.append(Numbering(other.name, labels))
    moved = {n: split if split.y is None else Split(split.x, first.labels[split.y]) for n, split in splits.items()}
    names = found.class_names
    if first.name == BY_NAMES:
        names = None
    elif names is not None and len(names) == num_classes:  # each class once
        names = tuple(names[index] for index in first.labels.argsort().tolist())
    notes = _notes(found, first, others, seen)
    return Alignment(moved, _class_names(num_classes, names, model_names), notes, first.name, tuple(alternatives))


def _notes(found: Source, first: _Candidate, others: Sequence[_Candidate], seen: Tensor) -> tuple[str, ...]:
    """Return a note on a guessed numbering."""
    if first.note:
        return (first.note,)
    if first.name == ALPHABETICAL and found.class_names is not None:
        kind = "folders" if found.names_from is NamesFrom.FOLDERS else "words"
        count, ends = len(found.class_names), (found.class_names[0], found.class_names[-1])
        return (
            f"labels are the {count} {kind} in alphabetical order, {ends[0]} as class 0 to {ends[1]} as class "
            f"{count - 1}. Fix if they are not classes: {NO_LABELS}",
        )
    if first.name == BY_NAMES or (first.name == OWN_NUMBERS and all(other.name == FROM_ONE for other in others)):
        return ()
    example = int(seen[0])
    shown = example if found.class_names is None else found.class_names[example]
    rest = f"; also possible: {' or '.join(other.name for other in others)}" if others else ""
    label = int(first.labels[example])
    return (
        f"labels ({found.labels_from or 'numbers'}) are taken {first.name}, {shown} as class {label}{rest}. "
        f"Fix if they are not classes: {NO_LABELS}",
    )


def _candidates(
    found: Source, seen: Tensor, num_classes: int, model_names: Sequence[str] | None
) -> tuple[_Candidate, ...]:
    """Return the possible numberings, the most likely one first."""
    names = found.class_names
    count = len(names) if names is not None else int(seen[-1]) + 1
    if names is not None and model_names is not None:
        by_names = _by_names(found, names, model_names, seen)
        if by_names is not None:
            return (by_names,)
    if num_classes == 1001 and count <= 1000 and model_names is not None and model_names[0].lower() == "background":
        return (_Candidate("shifted by one, for the model's class background", torch.arange(1, count + 1)),)
    if names is None:
        return _of_integers(seen, num_classes, model_names)
    numbers = None if found.names_from is NamesFrom.DATA else numbers_in(names)
    if numbers is not None:
        return _of_numbers(names, numbers, num_classes)
    if count != num_classes:
        return ()
    if found.names_from is NamesFrom.DATA:
        return (_Candidate(OWN_NUMBERS, torch.arange(count), _name_note(names, model_names)),)
    return (_Candidate(ALPHABETICAL, torch.arange(count)),)


def _by_names(found: Source, names: tuple[str, ...], model_names: Sequence[str], seen: Tensor) -> _Candidate | None:
    """Return the numbering by the model's names; None if no name of the data matches.

    Raises:
        UnusableInput: Only some classes match.
    """
    matched = match_names(names, model_names)
    classes = seen.tolist()
    missing = [names[label] for label in classes if matched[label] is None]
    if not missing:
        return _Candidate(BY_NAMES, torch.tensor([-1 if label is None else label for label in matched]))
    if len(missing) == len(classes) or as_numbers(names) is not None:
        return None
    in_place = all(label is None or label == place for place, label in enumerate(matched))
    if found.names_from is NamesFrom.DATA and in_place and len(names) == len(model_names):
        return None  # the same order under other names; a note names one
    left = [label for label in range(len(model_names)) if label not in matched]
    if len(missing) == 1 and len(left) == 1:
        matched[names.index(missing[0])] = left[0]
        note = (
            f"class {missing[0]!r} of the data is taken as {model_names[left[0]]!r}, the only class left of the model"
        )
        return _Candidate(BY_NAMES, torch.tensor([-1 if label is None else label for label in matched]), note)
    raise UnusableInput(
        f"{found.name}: expected the model's class names ({_listed(model_names)}), got {_listed(missing)}, "
        f"{len(missing)} of {len(classes)} classes without a match. Fix: name all classes as the model does, "
        f"or {NO_LABELS}."
    )


def _of_integers(seen: Tensor, num_classes: int, model_names: Sequence[str] | None) -> tuple[_Candidate, ...]:
    """Return the numberings of labels that are whole numbers."""
    numbers = torch.arange(int(seen[-1]) + 1)
    candidates = [_Candidate(OWN_NUMBERS, numbers)]
    if int(seen[0]) >= 1:
        candidates.append(_Candidate(FROM_ONE, numbers - 1))
    model_numbers = None if model_names is None else as_numbers(model_names)
    if model_numbers is not None:
        position = {number: label for label, number in enumerate(model_numbers)}
        candidates.append(_Candidate(BY_NAMES, torch.tensor([position.get(n, -1) for n in numbers.tolist()])))
    return _possible(candidates, seen, num_classes)


def _of_numbers(names: tuple[str, ...], numbers: list[int], num_classes: int) -> tuple[_Candidate, ...]:
    """Return the numberings of folders or words that are numbers without a match among the model's names."""
    places, order = list(range(len(names))), torch.empty(len(names), dtype=torch.int64)
    candidates = [_Candidate(OWN_NUMBERS, torch.tensor(numbers))]
    if len(names) == num_classes:
        for name, key in (("in numeric order", numbers.__getitem__), (ALPHABETICAL, names.__getitem__)):
            ranked = order.clone()
            ranked[torch.tensor(sorted(places, key=key))] = torch.arange(len(names))
            candidates.append(_Candidate(name, ranked))
    if min(numbers) >= 1:
        candidates.append(_Candidate(FROM_ONE, torch.tensor(numbers) - 1))
    return _possible(candidates, torch.tensor(places), num_classes)


def _possible(candidates: Sequence[_Candidate], seen: Tensor, num_classes: int) -> tuple[_Candidate, ...]:
    """Return the different candidates with a class of the model for each label."""
    found: list[_Candidate] = []
    for candidate in candidates:
        labels = candidate.labels[seen]
        fits = bool((labels >= 0).all() and (labels < num_classes).all())
        if fits and not any(torch.equal(labels, other.labels[seen]) for other in found):
            found.append(candidate)
    return tuple(found)


def _name_note(names: Sequence[str], model_names: Sequence[str] | None) -> str:
    """Return a note if the data's list of classes has other names than the model's."""
    if model_names is None:
        return ""
    matched = match_names(names, model_names)
    label = next(place for place, found in enumerate(matched) if found is None)
    count = sum(found is None for found in matched)
    return (
        f"labels are taken as they are: {count} of {len(names)} class names are not the model's, for instance "
        f"{names[label]!r} for its class {label}, {model_names[label]!r}"
    )


def _drop_only_class(
    splits: Splits, found: Source, num_classes: int | None, model_names: Sequence[str] | None, seen: Tensor
) -> Alignment:
    """Drop the labels if the only folder is not one of the model's classes; raise UnusableInput otherwise."""
    label = int(seen[0])
    names = found.class_names
    shown = names[label] if names is not None and 0 <= label < len(names) else str(label)
    if num_classes is not None and _is_no_class(found, model_names):
        note = f"no labels: the only folder ({shown}) is not used as a class"
        return Alignment(drop_labels(splits), _class_names(num_classes, None, model_names), (note,))
    raise UnusableInput(
        f"{found.name}: expected samples of at least two classes, got only class {shown}. "
        f"Fix if it is not a class: {NO_LABELS}."
    )


def _check_range(found: Source, seen: Tensor) -> None:
    smallest, largest = int(seen[0]), int(seen[-1])
    if smallest < 0:
        raise UnusableInput(f"{found.name}: expected labels from 0 on, got {smallest}")
    if largest >= MAX_CLASSES:
        raise UnusableInput(
            f"{found.name}: expected class numbers below {MAX_CLASSES:,} as labels, got {largest:,}. Fix: {NO_LABELS}."
        )
    if found.class_names is not None and largest >= len(found.class_names):
        raise UnusableInput(
            f"{found.name}: expected labels below {len(found.class_names)}, its number of classes, got {largest}"
        )


def _count_error(found: Source, num_classes: int, largest: int) -> UnusableInput:
    names = found.class_names
    numbers = None if names is None or found.names_from is NamesFrom.DATA else numbers_in(names)
    if names is None or numbers is not None:
        largest = largest if numbers is None else max(numbers)
        return UnusableInput(
            f"{found.name}: expected labels below {num_classes}, the model's number of classes, got {largest}. "
            f"Fix: give data with the model's own classes, or {NO_LABELS}."
        )
    fix = {
        NamesFrom.FOLDERS: f"name its folders as the model names its classes or by their numbers, or {NO_LABELS}",
        NamesFrom.WORDS: f"use the model's class names or their numbers as labels, or {NO_LABELS}",
        NamesFrom.DATA: "give data with the model's own classes",
    }[found.names_from]
    return UnusableInput(
        f"{found.name}: expected the model's {num_classes} classes, the data has {len(names)} ({_listed(names)}). "
        f"Fix: {fix}."
    )


def _is_no_class(found: Source, model_names: Sequence[str] | None) -> bool:
    """Return True if the data is one folder of images, and the folder's name is not a class of the model."""
    names = found.class_names or ()
    if found.names_from is not NamesFrom.FOLDERS or len(names) != 1 or as_numbers(names) is not None:
        return False
    return match_names(names, model_names or ())[0] is None


def _class_names(count: int, names: tuple[str, ...] | None, model_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the data's or the model's names if their number is ``count``, else numbers."""
    for candidate in (names, model_names):
        if candidate is not None and len(candidate) == count:
            return tuple(candidate)
    return tuple(map(str, range(count)))


def _listed(names: Sequence[str]) -> str:
    """Return the first names with commas, and dots for the rest."""
    shown = ", ".join(name[:40] for name in names[:SHOWN_NAMES])
    return f"{shown}, ..." if len(names) > SHOWN_NAMES else shown
