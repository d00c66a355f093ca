"""Translation of any error of a foreign decoder into one line with the name and the expected content of the file.

``core.errors.foreign_errors`` does so for whole readers, without a kind of content.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.core.errors import AssayError, UnusableInput, first_line
from assay.io.files import check_plain_file


@contextmanager
def one_line_errors(where: object, expected: str) -> Iterator[None]:
    """Raise UnusableInput for every error inside, apart from those of assay and of the user's keyboard.

    Decoders raise any type: pillow ``struct.error`` and ``ZeroDivisionError``, Rust libraries panics that are no
    ``Exception``.

    Args:
        where: The file, or a name of the place in it.
        expected: Kind of content, to follow "is not": "a readable image".

    Raises:
        UnusableInput: The block raised an error. A pointer in place of the file is named.
    """
    try:
        yield
    except (AssayError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(where, Path):
            try:
                check_plain_file(where)
            except OSError as problem:
                raise UnusableInput(f"{where}: cannot be read ({problem.strerror or problem})") from None
        reason = first_line(error)[:200]
        kind = type(error).__name__
        shown = reason if reason == kind or isinstance(error, OSError | ValueError) else f"{kind}: {reason}"
        raise UnusableInput(f"{where}: is not {expected} ({shown})") from None
