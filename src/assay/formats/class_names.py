"""Class names in a ``config.json``: ``id2label`` and ``label2id`` of Hugging Face, ``label_names`` of timm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from assay.core.errors import UnusableInput

MAX_SHOWN = 4  # class numbers in an error message


def read_class_names(config: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    """Return the class names of a config in the order of the outputs, None without any.

    Two classes may have the same name, as in ImageNet.

    Args:
        config: Content of ``config.json``.
        where: Name of the file in error messages.

    Raises:
        UnusableInput: The numbers are not 0 to K - 1, or ``label2id`` numbers the same names otherwise.
    """
    found = config.get("id2label")
    if not found:
        return _timm_names(config) or _names_by_label(config.get("label2id"), where)
    if isinstance(found, list):
        found = {str(number): name for number, name in enumerate(found)}
    if not isinstance(found, dict) or not all(isinstance(name, str | int | float) for name in found.values()):
        raise UnusableInput(f"{where}: expected id2label with one name per class number, got {str(found)[:60]}")
    expected = [str(number) for number in range(len(found))]
    if sorted(found) != sorted(expected):
        wrong = [number for number in found if number not in set(expected)]
        raise UnusableInput(
            f"{where}: expected the numbers 0 to {len(found) - 1} for the {len(found)} classes of id2label, got "
            f"{', '.join(map(repr, wrong[:MAX_SHOWN]))}. Fix: number the classes as the outputs of the model."
        )
    names = tuple(str(found[number]) for number in expected)
    _refuse_other_numbers(names, config.get("label2id"), where)
    return names


def _names_by_label(label2id: object, where: str) -> tuple[str, ...] | None:
    """Return the names of ``label2id`` in the order of their numbers, None without any.

    Raises:
        UnusableInput: The numbers are not 0 to K - 1.
    """
    if not isinstance(label2id, dict) or not label2id:
        return None
    names = {str(number): str(name) for name, number in label2id.items()}
    expected = [str(number) for number in range(len(label2id))]
    if sorted(names) != sorted(expected):
        raise UnusableInput(
            f"{where}: expected the numbers 0 to {len(label2id) - 1} for the {len(label2id)} classes of label2id, got "
            f"others. Fix: number the classes as the outputs of the model."
        )
    return tuple(names[number] for number in expected)


def _refuse_other_numbers(names: tuple[str, ...], label2id: object, where: str) -> None:
    """Raise UnusableInput if ``label2id`` gives one of these names another number."""
    if not isinstance(label2id, dict):
        return
    counts = Counter(names)
    for number, name in enumerate(names):
        other = label2id.get(name, number)
        if counts[name] == 1 and str(other) != str(number):
            raise UnusableInput(
                f"{where}: id2label gives the class {name[:40]!r} the number {number}, and label2id gives it "
                f"{str(other)[:20]}. Fix: correct the wrong one."
            )


def _timm_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    stated = config.get("pretrained_cfg")
    for settings in (config, stated if isinstance(stated, dict) else {}):
        names = settings.get("label_names")
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None
