"""Match of the data's class names with the model's, by their exact, normalized or synonymous form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

# Names that number the classes only, as transformers writes them.
GENERIC_NAME = re.compile(r"label[ _-]?\d+", re.IGNORECASE)

# Names with one number, and names behind a number.
NUMBERED_NAME = re.compile(r"(\D*)(\d{1,9})(\D*)")
LEADING_NUMBER = re.compile(r"(\d{1,9})[\s._-]+(?=\D)")

# Longest number among class names, in digits.
MAX_DIGITS = 9


def match_names(names: Sequence[str], model_names: Sequence[str]) -> list[int | None]:
    """Return the model's label of each class name of the data; None for a name without a match.

    A form that several classes share decides nothing: two classes of ImageNet are called "crane".

    Args:
        names: Names in the data, each once.
        model_names: Names of the model's classes, by label.
    """
    if [name.strip().casefold() for name in names] == [name.strip().casefold() for name in model_names]:
        return list(range(len(names)))
    found: list[int | None] = [None] * len(names)
    for forms in (_exact_forms, _normalized_forms, _synonyms):
        known, own = _unique(model_names, forms), _unique(names, forms)
        for form, position in own.items():
            if found[position] is None and form in known:
                found[position] = known[form]
    counts = Counter(label for label in found if label is not None)
    return [None if label is None or counts[label] > 1 else label for label in found]


def normalize(name: str) -> str:
    """Return a class name in lower case, with spaces for punctuation and without leading zeros."""
    plain = re.sub(r"[\W_]+", " ", name.casefold()).strip() or name.strip()
    number = as_number(plain)
    return plain if number is None else str(number)


def as_number(text: str) -> int | None:
    """Return the whole number in a text of at most ``MAX_DIGITS`` decimal digits; None for other texts."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def as_numbers(names: Sequence[str]) -> list[int] | None:
    """Return class names as different whole numbers; None if they are not."""
    numbers = [as_number(name) for name in names]
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(names) == len(set(found)) else None


def numbers_in(names: Sequence[str]) -> list[int] | None:
    """Return the different numbers in class names: 7, class_7, or 7_cat. None for other names.

    Args:
        names: Class names. The text around the number is the same in all of them, or it follows a number and a mark.
    """
    numbers = as_numbers(names)
    if numbers is not None or len(names) < 2:
        return numbers
    around = [NUMBERED_NAME.fullmatch(name.strip()) for name in names]
    if all(around) and len({(found[1].casefold(), found[3].casefold()) for found in around if found}) == 1:
        return as_numbers([found[2] for found in around if found])
    before = [LEADING_NUMBER.match(name.strip()) for name in names]
    return as_numbers([found[1] for found in before if found]) if all(before) else None


def are_generic(names: Sequence[str]) -> bool:
    """Return True if the names only number the classes: LABEL_0, LABEL_1, ..."""
    return all(GENERIC_NAME.fullmatch(name.strip()) for name in names)


def _unique(names: Sequence[str], forms: Callable[[str], set[str]]) -> dict[str, int]:
    """Return the position of each form that only one name has."""
    positions: dict[str, set[int]] = {}
    for position, name in enumerate(names):
        for form in forms(name):
            positions.setdefault(form, set()).add(position)
    return {form: next(iter(owners)) for form, owners in positions.items() if len(owners) == 1}


def _exact_forms(name: str) -> set[str]:
    return {name.strip().casefold()}


def _normalized_forms(name: str) -> set[str]:
    return {normalize(name)}


def _synonyms(name: str) -> set[str]:
    """Return the normalized synonyms in a name such as "tench, Tinca tinca" of ImageNet."""
    return {normalize(part) for part in name.split(",") if part.strip()} | {normalize(name)}
