"""Errors: messages of foreign readers."""

from __future__ import annotations

import pytest

from assay.core.errors import UnusableInput, foreign_errors


class Panic(BaseException):
    """As PanicException of pyo3."""


@pytest.mark.parametrize("error", [Panic("bad index"), ValueError("bad index"), SystemExit("bad index")])
def test_errors_of_a_reader_name_the_file(error: BaseException) -> None:
    with (
        pytest.raises(UnusableInput, match=f"m.onnx: expected readable content, got {type(error).__name__}: bad index"),
        foreign_errors("m.onnx"),
    ):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FileNotFoundError("gone"), UnusableInput("known")])
def test_deliberate_errors_and_interrupts_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), foreign_errors("m.onnx"):
        raise error


def test_lack_of_memory_names_the_file() -> None:
    with pytest.raises(UnusableInput, match="m: expected a file that fits in memory"), foreign_errors("m"):
        raise MemoryError


def test_message_with_line_break_is_one_line() -> None:
    assert str(UnusableInput("a\nb\r.json: expected a file")) == "a\\nb\\r.json: expected a file"
