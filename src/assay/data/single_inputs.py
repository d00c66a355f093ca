"""Single inputs to compare: image files, folders of them, or files of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import InputSpec, Modality
from assay.data.codecs import CODECS, CUT

# Largest number of inputs at a time.
MAX_INPUTS = 100_000


@dataclass(frozen=True)
class Input:
    """One input with its name: an image file, or a text."""

    name: str
    content: Path | str


def find_inputs(paths: Sequence[Path], modality: Modality) -> list[Input]:
    """Return the single inputs in files and folders.

    Args:
        paths: Image files and folders of them; or text files, each line being one input.
        modality: Kind of the inputs.

    Raises:
        UnusableInput: There are none or too many, or a file cannot be read.
    """
    codec, inputs = CODECS[modality], list[Input]()
    for path in paths:
        if not path.exists():
            raise UnusableInput(f"{path}: no such file or folder")
        inputs += [Input(name, content) for name, content in codec.find(path)]
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise UnusableInput(f"expected from 1 to {MAX_INPUTS:,} {codec.files}; got {len(inputs):,}")
    return inputs


def read_inputs(inputs: Sequence[Input], spec: InputSpec) -> tuple[Tensor, int]:
    """Convert single inputs into a batch.

    Args:
        inputs: Inputs of the model's modality.
        spec: The model's input specification.

    Returns:
        The batch (N, ...), and the number of inputs cut because of their length.
    """
    x, remarks = CODECS[spec.modality].decode([(each.name, each.content) for each in inputs], len(inputs), spec)
    return x, remarks[CUT]
