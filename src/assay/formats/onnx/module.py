"""ONNX graphs as torch modules, run node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from assay.formats.onnx.arguments import Operator


@dataclass(frozen=True)
class Step:
    """One node of the graph."""

    operator: str  # name in the standard
    run: Operator
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]  # "" for an omitted one
    outputs: tuple[str, ...]
    name: str  # for messages

    def __call__(self, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of the node for the values so far."""
        made = self.run(self.attributes, [values[name] if name else None for name in self.inputs])
        return made if isinstance(made, tuple) else (made,)


@final
class OnnxGraph(nn.Module):
    """A graph with one input ``source`` (N, C, H, W) and one output ``result``."""

    def __init__(self, steps: Sequence[Step], constants: Mapping[str, Tensor], source: str, result: str) -> None:
        super().__init__()
        self.steps, self.source, self.result = tuple(steps), source, result
        self.is_quantized = any(step.operator == "QuantizeLinear" for step in self.steps)
        self.buffer_names = {name: f"constant_{number}" for number, name in enumerate(constants)}
        for name, value in constants.items():
            self.register_buffer(self.buffer_names[name], value)
        last_use = {name: number for number, step in enumerate(self.steps) for name in step.inputs if name}
        last_use.pop(result, None)
        # Values without a later reader, by step: their memory is freed.
        self.freed: list[list[str]] = [[] for _ in self.steps]
        for name, number in last_use.items():
            self.freed[number].append(name)

    def forward(self, x: Tensor) -> Tensor:
        """Return the graph's output for a batch."""
        values = {name: self.get_buffer(buffer) for name, buffer in self.buffer_names.items()} | {self.source: x}
        for step, freed in zip(self.steps, self.freed, strict=True):
            values.update(zip(step.outputs, step(values), strict=False))
            for name in freed:
                values.pop(name)
        return values[self.result]
