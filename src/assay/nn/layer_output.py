"""The output of an inner layer as an embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.nn.hooks import forward_hook


class LayerOutput(nn.Module):
    """Model with the output of one of its layers, flattened to (N, D), as its output.

    The wrapped model is used directly, not copied.
    """

    def __init__(self, net: nn.Module, layer: str) -> None:
        """Find the layer.

        Args:
            net: Model to wrap.
            layer: Dotted name of the layer, or a unique ending of it.

        Raises:
            UnusableInput: No layer or several layers have this name.
        """
        super().__init__()
        named = [name for name, _ in net.named_modules() if name == layer or name.endswith(f".{layer}")]
        if len(named) != 1:
            convolutions = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
            example = convolutions[-1] if convolutions else "one of its modules"
            matches = f"{len(named)} layers: {', '.join(named[:3])}" if named else "no layer"
            raise UnusableInput(
                f"expected the name of one layer, got {layer}, which matches {matches}. "
                f"Fix: give a full name such as {example}"
            )
        self.net = net
        self.layer = named[0]

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[object] = []

        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            outputs.append(output)

        with forward_hook([self.net.get_submodule(self.layer)], record):
            self.net(x)
        if not outputs or not isinstance(out := outputs[-1], torch.Tensor) or len(out) != len(x):
            raise UnusableInput(f"expected a layer with one output tensor per sample, got {self.layer}")
        return out.flatten(1)
