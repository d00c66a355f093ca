"""Choice of the file with the settings of an image processor, as transformers chooses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.core.errors import UnusableInput

# transformers 5 nests the settings in the file of the whole processor. They take precedence over a file of their own.
PREPROCESSOR, PROCESSOR, NESTED = "preprocessor_config.json", "processor_config.json", "image_processor"


@dataclass(frozen=True)
class ProcessorSettings:
    """Settings of an image processor."""

    settings: dict[str, Any] | None  # None: no file has them
    source: str = PREPROCESSOR  # name of the file
    notes: tuple[str, ...] = ()


def choose_settings(files: Mapping[str, dict[str, Any]]) -> ProcessorSettings:
    """Return the settings of the image processor in the files of a folder.

    Args:
        files: Content of ``processor_config.json`` and ``preprocessor_config.json`` by name, as far as they exist.

    Raises:
        UnusableInput: The nested settings are no object.
    """
    nested, plain = files.get(PROCESSOR, {}).get(NESTED), files.get(PREPROCESSOR)
    if nested is None:
        return ProcessorSettings(plain)
    if not isinstance(nested, dict):
        raise UnusableInput(f"{PROCESSOR}: expected {NESTED} as an object, got {str(nested)[:40]}")
    differing = plain is not None and any(plain.get(key) != value for key, value in nested.items() if key in plain)
    note = f"{PREPROCESSOR} differs from {PROCESSOR} and is not used; transformers 5 prefers the latter, too"
    return ProcessorSettings(nested, PROCESSOR, (note,) if differing else ())
