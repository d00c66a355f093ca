"""ONNX Runtime sessions as torch modules without gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.formats.onnx.session import start_session
from assay.formats.onnx.signature import GraphSignature
from assay.formats.outputs import flatten_logits
from assay.nn.fake_quant import straight_through_round

LARGEST_BYTE = 255


class OnnxRuntimeModule(nn.Module):
    """An ONNX Runtime session: (N, C, H, W) -> (N, K), no gradients. Copies share the session.

    Args:
        path: The ONNX file.
        signature: Its input and output.
        optimized: False: ONNX Runtime leaves the graph as it stands in the file.
        session: A session of the file with these optimizations; None: a new one.
    """

    def __init__(self, path: Path, signature: GraphSignature, *, optimized: bool = True, session: Any = None) -> None:
        super().__init__()
        self.path, self.signature, self.optimized = path, signature, optimized
        self.session = start_session(path, optimized=optimized) if session is None else session

    @property
    def input(self) -> str:
        """Name of the input of images."""
        return self.signature.image.name

    @property
    def output(self) -> str:
        """Name of the output of logits."""
        return self.signature.output

    @property
    def batch(self) -> int | None:
        """Number of images of each run; None: any."""
        return self.signature.batch

    @property
    def channels_last(self) -> bool:
        """True if the graph takes (N, H, W, C)."""
        return self.signature.channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch."""
        return self.run_in_graph_layout(self._run, x.detach().to("cpu"))

    def graph_values(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in the layout and range of the graph's input, with gradients.

        A graph for 8-bit images gets whole numbers from 0 to 255, as floats.
        """
        if self.channels_last:
            x = x.permute(0, 2, 3, 1)
        dtype = self.signature.image.dtype
        if dtype == "uint8":
            return straight_through_round(x * LARGEST_BYTE, 1.0, 0, LARGEST_BYTE)
        return x.double() if dtype == "float64" else x

    def run_in_graph_layout(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Call a function with a batch in the layout and the fixed batch size of the graph.

        Args:
            run: Function of a batch in the graph's layout.
            x: Images (N, C, H, W).

        Returns:
            The function's output (N, K).
        """
        x = self.graph_values(x)
        if self.batch is None:
            return flatten_logits(run(x)).float()
        # Pieces of the fixed batch size, the last one padded with its own last image.
        pieces = []
        for piece in x.split(self.batch):
            padding = piece[-1:].expand(self.batch - len(piece), *piece.shape[1:])
            pieces.append(flatten_logits(run(torch.cat([piece, padding])))[: len(piece)])
        return torch.cat(pieces).float()

    def feeds(self, values: Tensor) -> dict[str, Any]:
        """Return the inputs of a session for values of ``graph_values``."""
        array = values.detach().contiguous().numpy().astype(self.signature.image.dtype)
        return {self.input: array} | {unread.name: unread.zeros(len(array)) for unread in self.signature.image.unread}

    def with_optimization(self, optimized: bool) -> OnnxRuntimeModule:
        """Return the same input and output in a session with or without optimizations of the graph."""
        return OnnxRuntimeModule(self.path, self.signature, optimized=optimized)

    def _run(self, values: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run([self.output], self.feeds(values))[0])

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxRuntimeModule:
        return self

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return partial(OnnxRuntimeModule, optimized=self.optimized), (self.path, self.signature)


def restart_sessions(module: nn.Module) -> None:
    """Start all sessions in a module again: after a fork, those of the first process have lost their threads."""
    for part in module.modules():
        if isinstance(part, OnnxRuntimeModule):
            part.session = start_session(part.path, optimized=part.optimized)
