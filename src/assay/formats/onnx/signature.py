"""Use of an ONNX graph: its image input, the layout and batch size that it takes, and its output of logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from assay.core.errors import UnusableInput
from assay.formats.onnx.bounds import MAX_BATCH_NUMBERS, refuse_large_batch
from assay.formats.onnx.names import subgraphs
from assay.formats.onnx.session import short_message
from assay.formats.outputs import ModelOutput, choose_logits, describe_output, unexamined_note
from assay.formats.shape import MAX_SIDE, Shape, format_shape

if TYPE_CHECKING:
    import onnx

FLOAT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
IMAGE_TYPES = {**FLOAT_TYPES, "tensor(uint8)": "uint8"}
OTHER_TYPES = {
    "tensor(bool)": "bool", "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int8)": "int8",
    "tensor(int16)": "int16", "tensor(string)": "object",
}  # fmt: skip
CHANNELS = (1, 3, 4)  # sizes of an axis that can be the channels
# Batch sizes for a graph with an open batch axis that fails on two images and on one.
INNER_BATCHES = (4, 8, 16, 32, 64)
MAX_UNREAD = 2**20  # values of an input that nothing reads


@dataclass(frozen=True)
class UnreadInput:
    """An input that no operator reads. It gets zeros."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]  # None: the batch size, or any size

    def zeros(self, batch: int) -> np.ndarray:
        """Return zeros for a batch."""
        sides = [batch if place == 0 and side is None else side or 1 for place, side in enumerate(self.shape)]
        return np.full(sides, "", object) if self.dtype == "object" else np.zeros(sides, self.dtype)


@dataclass(frozen=True)
class ImageInput:
    """The input of images (N, C, H, W) or (N, H, W, C)."""

    name: str
    dtype: str
    sides: tuple[int | None, int | None, int | None]  # after the batch axis; None: open
    batch: int | None  # None: any
    unread: tuple[UnreadInput, ...] = ()  # further inputs
    defaults: tuple[str, ...] = ()  # further inputs with a default in the file

    def fixed_shape(self) -> Shape | None:
        """Return (C, H, W) if the file fixes all of them."""
        first, second, third = self.sides
        if first is None or second is None or third is None:
            return None
        return (third, first, second) if self._is_channels_last() else (first, second, third)

    def layouts(self, shape: Shape) -> list[bool]:
        """Return the possible layouts for images (C, H, W), the likely one first. True: channels last.

        Raises:
            UnusableInput: The file takes images of another size.
        """
        arranged = {False: shape, True: (*shape[1:], shape[0])}
        fitting = [
            last
            for last, sides in arranged.items()
            if all(own in (None, side) for own, side in zip(self.sides, sides, strict=True))
        ]
        if not fitting:
            fixed = self.fixed_shape()
            found = list(self.sides) if fixed is None else format_shape(fixed)
            raise UnusableInput(
                f"expected images of the size that its input {self.name[:100]!r} takes, {found}, "
                f"got {format_shape(shape)}. Fix: leave the shape out, or correct it."
            )
        return sorted(fitting, key=lambda last: last is not self._is_channels_last())

    def _is_channels_last(self) -> bool:
        return self.sides[2] in CHANNELS and self.sides[0] not in CHANNELS


@dataclass(frozen=True)
class GraphSignature:
    """Input and output of a graph in use."""

    image: ImageInput
    shape: Shape
    channels_last: bool
    batch: int | None  # images of each run; None: any number
    output: str
    unexamined: tuple[str, ...] = ()  # further outputs
    notes: tuple[str, ...] = ()


def find_image_input(session: Any, model: onnx.ModelProto) -> ImageInput:
    """Return the only input of images.

    Args:
        session: The ONNX Runtime session.
        model: Its model. Inputs that no operator reads are ignored.

    Raises:
        UnusableInput: There is no such input, or the graph needs further ones.
    """
    read = _names_read(model)
    inputs = session.get_inputs()
    used = [value for value in inputs if value.name in read]
    listed = ", ".join(f"{value.name[:100]}: {value.type} {value.shape}" for value in inputs[:10]) or "none"
    images = [value for value in used if value.type in IMAGE_TYPES and len(value.shape) == 4]
    if len(used) != 1 or len(images) != 1:
        raise UnusableInput(
            f"expected one input of images (N, channels, height, width), floats or uint8, got {listed}. {_fix(used)}"
        )
    value = images[0]
    batch, *sides = [side if isinstance(side, int) else None for side in value.shape]
    if any(side is not None and not 0 < side <= MAX_SIDE for side in sides):
        raise UnusableInput(
            f"expected images of 1 to {MAX_SIDE} pixels a side, got the input {listed}. Fix: export it again."
        )
    unread = tuple(_unread(other) for other in inputs if other.name not in read)
    defaults = tuple(other.name for other in session.get_overridable_initializers())
    first, second, third = sides
    return ImageInput(value.name, IMAGE_TYPES[value.type], (first, second, third), batch, unread, defaults)


def drop_unread_inputs(model: onnx.ModelProto, image: ImageInput) -> None:
    """Remove the inputs of a model that nothing reads.

    Args:
        model: The model. It is changed.
        image: Its input of images, with the others.
    """
    unread = {other.name for other in image.unread}
    kept = [value for value in model.graph.input if value.name not in unread]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def find_signature(session: Any, image: ImageInput, shape: Shape, wanted: str | None, path: Path) -> GraphSignature:
    """Run the graph on blank images, and choose its layout, its batch size and the output of logits.

    A graph with an open batch axis that fails on two images runs on one image at a time, or on a batch size that it
    accepts.

    Args:
        session: The ONNX Runtime session.
        image: Its input.
        shape: (C, H, W) of the images.
        wanted: Name of the output with the logits, given by the user.
        path: The file.

    Raises:
        UnusableInput: The graph does not run, or the output of logits is unclear.
    """
    refuse_large_batch(image.batch, shape, path)
    layouts, outputs, errors = image.layouts(shape), None, []
    for last, count in _attempts(image, layouts, shape):
        if outputs is not None and count in INNER_BATCHES and image.batch is None:
            break  # it runs on one or two images
        try:
            tried = _blank_outputs(session, image, shape, count, last)
        except Exception as error:  # onnxruntime's errors share no public base class
            errors.append(short_message(error))
            continue
        outputs = outputs or tried
        if any(output.can_be_logits for output in tried):
            chosen = choose_logits(tried, wanted)
            batch = image.batch if count == 2 else count
            signature = GraphSignature(image, shape, last, batch, chosen.name)
            others = tuple(output.name for output in tried if output.name != chosen.name)
            notes = _notes(signature, others, errors, ambiguous=len(layouts) > 1)
            return replace(signature, unexamined=others, notes=notes)
    if outputs is None:
        raise UnusableInput(f"ONNX Runtime does not run it on images {format_shape(shape)}: {errors[0]}")
    choose_logits(outputs, wanted)
    raise UnusableInput(f"expected an output of logits (N, K) in {wanted!r}. Fix: give another output.")


def _attempts(image: ImageInput, layouts: Sequence[bool], shape: Shape) -> list[tuple[bool, int]]:
    """Return layouts and batch sizes to try, in their order.

    Args:
        image: The input.
        layouts: Possible layouts. True: channels last.
        shape: (C, H, W) of the images.
    """
    if image.batch is not None:
        return [(last, image.batch) for last in layouts]
    larger = [count for count in INNER_BATCHES if count * math.prod(shape) <= MAX_BATCH_NUMBERS]
    return [(last, count) for counts in ((2, 1), larger) for last in layouts for count in counts]


def _blank_outputs(session: Any, image: ImageInput, shape: Shape, count: int, last: bool) -> list[ModelOutput]:
    """Return all outputs for black images."""
    sides = (*shape[1:], shape[0]) if last else shape
    feeds = {image.name: np.zeros((count, *sides), image.dtype)} | {u.name: u.zeros(count) for u in image.unread}
    values = session.run(None, feeds)
    names = [value.name for value in session.get_outputs()]
    return [describe_output(name, _tensor(value), count) for name, value in zip(names, values, strict=True)]


def _tensor(value: Any) -> Any:
    """Return an array as a tensor; sequences, maps and texts unchanged."""
    is_number = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    return torch.from_numpy(value.astype(np.int64) if value.dtype.kind == "u" else value) if is_number else value


def _notes(
    signature: GraphSignature, others: Sequence[str], errors: Sequence[str], *, ambiguous: bool
) -> tuple[str, ...]:
    image, notes = signature.image, list(unexamined_note(others))
    if image.dtype == "uint8":
        notes.append("its input is 8-bit: it gets the images rounded to whole steps from 0 to 255")
    if image.batch is None and signature.batch is not None:
        reason = f": {errors[0]}" if errors else ""
        size = "one image at a time" if signature.batch == 1 else f"batches of {signature.batch} images only"
        notes.append(f"it runs on {size}, although its batch axis is open{reason}")
    if ambiguous:
        order = "(N, height, width, channels)" if signature.channels_last else "(N, channels, height, width)"
        notes.append(f"the file leaves the order of the axes open; it gets images as {order}")
    notes += [f"its input {unread.name[:100]} is ignored, because nothing reads it" for unread in image.unread]
    notes += [f"its input {name[:100]} keeps its default in the file" for name in image.defaults[:3]]
    return tuple(notes)


def _names_read(model: onnx.ModelProto) -> set[str]:
    """Return the names of all values that an operator reads, or that are outputs."""
    read, graphs = set(), [model.graph]
    while graphs:
        graph = graphs.pop()
        read |= {value.name for value in graph.output}
        for node in graph.node:
            read |= set(node.input)
            graphs += subgraphs(node)
    return read


def _unread(value: Any) -> UnreadInput:
    types = {**IMAGE_TYPES, **OTHER_TYPES}
    shape = tuple(side if isinstance(side, int) else None for side in value.shape)
    if value.type not in types or not 0 <= math.prod(side or 1 for side in shape) <= MAX_UNREAD:
        raise UnusableInput(
            f"expected a small tensor as the input {value.name[:100]!r}, which nothing reads, got {value.type} "
            f"{value.shape}. Fix: export it without this input."
        )
    return UnreadInput(value.name, types[value.type], shape)


def _fix(used: Sequence[Any]) -> str:
    """Return the way out for a graph with other inputs than one of images."""
    if len(used) > 1:
        return "Fix: export it with constants in place of its other inputs."
    if used and used[0].type in IMAGE_TYPES and len(used[0].shape) == 3:
        return "Fix: export it with a batch axis in front."
    if used and len(used[0].shape) == 4:
        return "Fix: export it with an input of floats or uint8."
    if used and used[0].type in ("tensor(int64)", "tensor(int32)"):
        return "Fix: a text model needs its folder with config.json, safetensors weights and tokenizer.json."
    return "Fix: export it with images as its only input."
