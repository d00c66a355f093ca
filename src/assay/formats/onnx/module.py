"""An ONNX graph as a torch module: its nodes one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from assay.formats.onnx.arguments import Operator
from assay.formats.onnx.operators import OPERATORS


@dataclass(frozen=True)
class Step:
    """One node."""

    run: Operator
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]  # "" for one that is left out
    outputs: tuple[str, ...]
    name: str  # for messages

    def __call__(self, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        made = self.run(self.attributes, [values[name] if name else None for name in self.inputs])
        return made if isinstance(made, tuple) else (made,)


@final
class OnnxGraph(nn.Module):
    """``net(x)``: what the graph says of ``x`` (N, C, H, W), its only input."""

    def __init__(self, steps: Sequence[Step], constants: Mapping[str, Tensor], source: str, result: str) -> None:
        super().__init__()
        self.steps, self.source, self.result = tuple(steps), source, result
        self.rounds = any(step.run is OPERATORS["QuantizeLinear"] for step in self.steps)
        self.places = {name: f"constant_{place}" for place, name in enumerate(constants)}
        for name, value in constants.items():
            self.register_buffer(self.places[name], value)
        last = {name: place for place, step in enumerate(self.steps) for name in step.inputs if name}
        last.pop(result, None)
        # What no later step reads: its memory can go.
        self.dropped: list[list[str]] = [[] for _ in self.steps]
        for name, place in last.items():
            self.dropped[place].append(name)

    def forward(self, x: Tensor) -> Tensor:
        values = {name: self.get_buffer(place) for name, place in self.places.items()} | {self.source: x}
        for step, over in zip(self.steps, self.dropped, strict=True):
            values.update(zip(step.outputs, step(values), strict=False))
            for name in over:
                values.pop(name)
        return values[self.result]
