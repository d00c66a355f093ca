"""Choice of the columns of a table: samples and labels. Every choice among several becomes a note."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assay.core.errors import UnusableInput
from assay.data.request import NO_LABELS, Request

# Usual names of the label column in tables, in any case; the first ones are the most likely.
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "coarse_label")

# Usual names of the column of samples.
SAMPLE_COLUMNS = ("image", "img", "images", "picture", "text", "sentence", "content", "review", "document")

# Parts of names of columns that number or name the samples.
ID_NAMES = ("id", "idx", "index", "image_id", "path", "file", "file_name", "filename", "url", "__index_level_0__")


@dataclass(frozen=True)
class Columns:
    """The columns to read, and the choices in sentences."""

    samples: str
    label: str | None
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The columns of a table, by their use."""

    where: str  # for error messages
    names: Sequence[str]
    samples: Sequence[str]  # columns of the model's modality
    values: Sequence[str]  # columns of words or numbers
    class_lists: Mapping[str, Sequence[str]]  # class names of columns with such a list
    count_classes: Callable[[str], int]  # number of classes in a column without a list


def choose_columns(table: Table, request: Request, expected: str) -> Columns:
    """Return the columns of samples and labels.

    Args:
        table: The columns.
        request: The requested samples.
        expected: Columns of samples in words, for the error message.

    Raises:
        UnusableInput: There is no column of samples, the given label column is missing, or several fit equally.
    """
    label, notes = (None, ()) if not request.labels else _choose_label(table, request)
    samples = [name for name in table.samples if name != label]
    if not samples:
        raise UnusableInput(
            f"{table.where}: expected a column of {expected}, the model's inputs; got {', '.join(table.names)}"
        )
    chosen = _choose_samples(table, samples)
    others = [name for name in samples if name != chosen and name.casefold() not in LABEL_COLUMNS]
    if others:
        notes = (*notes, f"the column {chosen!r} is read; {_listed(others)} could hold samples too")
    if label is None and request.labels and not notes:
        notes = _missing_note(table, chosen)
    unused = tuple(name for name in table.names if name not in (chosen, label))
    return Columns(chosen, label, notes, unused)


def _choose_samples(table: Table, samples: Sequence[str]) -> str:
    """Return the column of samples: the only one, or one with a usual name; raise UnusableInput for several others."""
    usual = [name for known in SAMPLE_COLUMNS for name in samples if name.casefold() == known]
    others = [name for name in samples if name.casefold() not in ID_NAMES]
    if not usual and len(others) > 1:
        raise UnusableInput(
            f"{table.where}: expected one column of the model's inputs, got {_listed(others)}. "
            f"Fix: keep one of them in the table, or name it {SAMPLE_COLUMNS[0]!r}."
        )
    return (usual or others or samples)[0]


def _choose_label(table: Table, request: Request) -> tuple[str | None, tuple[str, ...]]:
    """Return the column of labels, or None; and a note on a choice."""
    if request.label_column is not None:
        if request.label_column not in table.names:
            raise UnusableInput(
                f"{table.where}: expected the label column {request.label_column!r}, got the columns "
                f"{', '.join(table.names)}"
            )
        return request.label_column, ()
    found = [name for known in LABEL_COLUMNS for name in table.names if name.casefold() == known]
    found += [name for name in table.names if name in table.class_lists and name not in found]
    if len(found) < 2:
        return (found[0] if found else None), ()
    listed = {name: len(names) for name in found if (names := table.class_lists.get(name))}
    sizes = {name: listed[name] if name in listed else table.count_classes(name) for name in found}
    count = request.num_classes
    fitting = [
        name for name in found if count is None or sizes[name] == count or (name not in listed and sizes[name] < count)
    ]
    shown = " and ".join(f"{name!r} ({sizes[name]} classes)" for name in found)
    if not fitting:
        raise UnusableInput(
            f"{table.where}: expected labels of the model's {count} classes, got the columns {shown}. "
            f"Fix: name one (label_column), or {NO_LABELS}."
        )
    note = f"labels are the column {fitting[0]!r}, out of {shown}. Fix if it is another one: name it (label_column)"
    return fitting[0], (note,)


def _missing_note(table: Table, samples: str) -> tuple[str, ...]:
    """Return a note on a table with columns, and none with a usual name of labels."""
    others = [name for name in table.names if name != samples]
    plausible = [name for name in others if name in table.values and name.casefold() not in ID_NAMES]
    if not others:
        return ()
    fix = f". Fix if {plausible[0]!r} holds the classes: label_column={plausible[0]!r}" if plausible else ""
    if len(plausible) > 1:
        fix = f". Fix if one of {_listed(plausible)} holds the classes: name it (label_column)"
    return (f"no labels: none of the columns {_listed(table.names)} has a usual name of labels{fix}",)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
