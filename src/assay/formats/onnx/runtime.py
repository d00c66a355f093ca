"""ONNX Runtime sessions as torch modules without gradients."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.formats.shape import MAX_SIDE, Shape

INPUT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
CHANNELS = (1, 3, 4)  # sizes of an axis that can be the channels


class OnnxRuntimeModule(nn.Module):
    """An ONNX Runtime session: (N, C, H, W) -> (N, K), no gradients. Copies share the session.

    Args:
        path: The ONNX file.
        optimized: False: ONNX Runtime leaves the graph as it stands in the file.
    """

    def __init__(self, path: Path, *, optimized: bool = True) -> None:
        super().__init__()
        self.path, self.optimized = path, optimized
        self.session = _start_session(path, optimized)
        self.input = _image_input(self.session, path)
        self.batch = self.input.shape[0] if isinstance(self.input.shape[0], int) else None
        self.channels_last = self.input.shape[3] in CHANNELS and self.input.shape[1] not in CHANNELS
        self.output = _logits_output(self.session, path)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch."""
        return self.run_in_graph_layout(self._run, x.detach().to("cpu"))

    def run_in_graph_layout(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Call a function with a batch in the layout and the fixed batch size of the graph.

        Args:
            run: Function of a batch in the graph's layout.
            x: Images (N, C, H, W).

        Returns:
            The function's output (N, K).
        """
        if self.channels_last:
            x = x.permute(0, 2, 3, 1)
        if self.batch is None:
            return run(x)
        # Pieces of the fixed batch size, the last one padded with its own last image.
        pieces = []
        for piece in x.split(self.batch):
            padding = piece[-1:].expand(self.batch - len(piece), *piece.shape[1:])
            pieces.append(run(torch.cat([piece, padding]))[: len(piece)])
        return torch.cat(pieces)

    def shape(self) -> Shape:
        """Return (C, H, W) of the input; raise UnusableInput if the graph leaves it open."""
        sides = self.input.shape[1:]
        if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides):
            raise UnusableInput(
                f"{self.path}: expected an input of fixed channels, height and width, got {self.input.shape}. "
                "Fix: give the shape (C, H, W), or set its metadata assay.shape to [channels, height, width]."
            )
        return (sides[2], sides[0], sides[1]) if self.channels_last else (sides[0], sides[1], sides[2])

    def _run(self, x: Tensor) -> Tensor:
        array = x.contiguous().numpy().astype(INPUT_TYPES[self.input.type])
        return torch.from_numpy(self.session.run([self.output], {self.input.name: array})[0]).float()

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxRuntimeModule:
        return self

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return partial(OnnxRuntimeModule, optimized=self.optimized), (self.path,)

    def with_optimization(self, optimized: bool) -> OnnxRuntimeModule:
        """Return the same input and output in a session with or without optimizations of the graph."""
        return OnnxRuntimeModule(self.path, optimized=optimized)


def _start_session(path: Path, optimized: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # its warnings would go straight to standard error
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base class
        raise UnusableInput(f"{path}: ONNX Runtime cannot load it: {_short_message(error)}") from None


def _short_message(error: Exception) -> str:
    """Return ONNX Runtime's message without the positions in its own source and without the path."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (Load model from .*? failed: ?)?", "", first_line(error))
    return re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z])", "", text)


def _image_input(session: Any, path: Path) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES or len(inputs[0].shape) != 4:
        found = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in inputs)
        raise UnusableInput(f"{path}: expected one float input (N, channels, height, width), got {found or 'none'}")
    return inputs[0]


def _logits_output(session: Any, path: Path) -> str:
    outputs = [value for value in session.get_outputs() if len(value.shape) == 2]
    named = [value for value in outputs if value.name == "logits"] or outputs
    if not named:
        found = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in session.get_outputs())
        raise UnusableInput(f"{path}: expected an output of logits (N, classes), got {found}")
    return named[0].name
