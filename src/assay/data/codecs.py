"""Codecs: conversion of stored samples into model inputs, one for each modality.

A new modality needs an ``InputSpec`` (``assay.core.model``), a codec, and an entry in ``CODECS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec, InputSpec, Modality, TextSpec
from assay.data.columns import LABEL_COLUMNS
from assay.data.image_files import SUFFIXES, images_below
from assay.data.images import augment_images, decode_images
from assay.data.tokenize import encode_texts, truncation_notes

if TYPE_CHECKING:
    import pyarrow as pa


# Remark on a text longer than an input.
CUT = "texts cut"


class Codec(ABC):
    """Conversion of the samples of one modality."""

    column: ClassVar[str]  # the column of samples in a table, in words
    files: ClassVar[str]  # files with single samples, in words
    only_tables: ClassVar[bool]  # True: all data sets of the modality are parquet files

    @abstractmethod
    def fits(self, field: pa.Field, kind: str | None) -> bool:
        """Return True if a column of a table holds samples.

        Args:
            field: The column's field in the table's schema.
            kind: Type of the column in the hub's metadata of the file, if given.
        """

    @abstractmethod
    def decode(self, samples: Iterable[tuple[str, Any]], count: int, spec: InputSpec) -> tuple[Tensor, Counter[str]]:
        """Convert samples into inputs.

        Args:
            samples: Names for error messages, with the stored content: a file, or the value of a table's cell.
            count: Number of the samples.
            spec: The model's input specification, of this modality.

        Returns:
            Inputs (N, ...), and remarks on the conversion with the number of their samples.
        """

    @abstractmethod
    def notes(self, remarks: Counter[str], spec: InputSpec) -> tuple[str, ...]:
        """Return the remarks of ``decode`` in sentences.

        Args:
            remarks: Number of samples by remark.
            spec: The model's input specification, of this modality.
        """

    def convert_raw(self, data: object, spec: InputSpec) -> tuple[object, tuple[str, ...]]:
        """Convert data in memory from the samples' stored form, if it has that form.

        Args:
            data: Data as the user gives it.
            spec: The model's input specification, of this modality.

        Returns:
            Inputs for stored samples, other data unchanged; and notes on the conversion.
        """
        return data, ()

    @abstractmethod
    def find(self, path: Path) -> Iterator[tuple[str, Path | str]]:
        """Yield the single samples in a file or folder: name and content."""

    @abstractmethod
    def augment(self, x: Tensor, *, mirror: bool, generator: torch.Generator) -> Tensor:
        """Return randomly changed inputs of the same classes, for training.

        Args:
            x: Inputs (N, ...).
            mirror: Allow mirror images.
            generator: Source of randomness.
        """


class ImageCodec(Codec):
    """Images as files, or as their bytes in a table."""

    column = "images (struct of bytes and path)"
    files = f"images ({', '.join(sorted(SUFFIXES))})"
    only_tables = False

    def fits(self, field: pa.Field, kind: str | None) -> bool:
        """Return True for a column of bytes, or of structs with bytes."""
        import pyarrow.types as types

        if types.is_struct(field.type):
            with_bytes = any(child.name == "bytes" and types.is_binary(child.type) for child in field.type)
        else:
            with_bytes = types.is_binary(field.type) or types.is_large_binary(field.type)
        return with_bytes or kind == "Image"

    def decode(self, samples: Iterable[tuple[str, Any]], count: int, spec: InputSpec) -> tuple[Tensor, Counter[str]]:
        """Decode, resize and crop images."""
        assert isinstance(spec, ImageSpec)
        remarks = Counter[str]()
        images = ((name, _file_content(name, value)) for name, value in samples)
        return decode_images(images, count, spec, remarks), remarks

    def notes(self, remarks: Counter[str], spec: InputSpec) -> tuple[str, ...]:
        """Return a note on each kind of unusual image."""
        return tuple(f"{count:,} {remark}" for remark, count in remarks.items())

    def find(self, path: Path) -> Iterator[tuple[str, Path | str]]:
        """Yield the image files in a folder and below it, or the one file."""
        for file in images_below(path) if path.is_dir() else [path]:
            yield str(file), file

    def augment(self, x: Tensor, *, mirror: bool, generator: torch.Generator) -> Tensor:
        """Return shifted and mirrored images."""
        return augment_images(x, mirror=mirror, generator=generator)


class TextCodec(Codec):
    """Texts as lines of a file, or as cells of a table."""

    column = "texts"
    files = "texts, one a line"
    only_tables = True

    def fits(self, field: pa.Field, kind: str | None) -> bool:
        """Return True for a column of texts other than labels."""
        import pyarrow.types as types

        is_text = types.is_string(field.type) or types.is_large_string(field.type)
        return is_text and field.name.casefold() not in LABEL_COLUMNS

    def decode(self, samples: Iterable[tuple[str, Any]], count: int, spec: InputSpec) -> tuple[Tensor, Counter[str]]:
        """Convert texts into token numbers."""
        assert isinstance(spec, TextSpec)
        texts = []
        for name, value in samples:
            if not isinstance(value, str):
                raise UnusableInput(f"{name} holds no text")
            texts.append(value)
        x, cut = encode_texts(texts, spec)
        return x, Counter({CUT: cut} if cut else {})

    def notes(self, remarks: Counter[str], spec: InputSpec) -> tuple[str, ...]:
        """Return a note on texts longer than an input."""
        assert isinstance(spec, TextSpec)
        return truncation_notes(remarks[CUT], spec)

    def convert_raw(self, data: object, spec: InputSpec) -> tuple[object, tuple[str, ...]]:
        """Convert a list of texts."""
        if not isinstance(data, list | tuple) or not data or not all(isinstance(text, str) for text in data):
            return data, ()
        assert isinstance(spec, TextSpec)
        x, cut = encode_texts(data, spec)
        return x, truncation_notes(cut, spec)

    def find(self, path: Path) -> Iterator[tuple[str, Path | str]]:
        """Yield the lines of a file, without blank ones."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise UnusableInput(f"{path}: expected a file of texts in UTF-8, one a line, got other bytes") from None
        except OSError as error:
            raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from None
        yield from ((f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip())

    def augment(self, x: Tensor, *, mirror: bool, generator: torch.Generator) -> Tensor:
        """Return the texts unchanged."""
        return x


CODECS: Mapping[Modality, Codec] = {Modality.IMAGE: ImageCodec(), Modality.TEXT: TextCodec()}


def _file_content(name: str, value: Any) -> Path | bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, Path | bytes):
        raise UnusableInput(f"{name} holds no image; expected its bytes")
    return content
