"""What a layer inside a net says, as an embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput


class LayerOutput(nn.Module):
    """A net whose answer is the output of one of its layers, flattened to (N, D); it takes the net over.

    ``layer``: its dotted name, or the end of it where only one layer has that. Raises UnusableInput for another.
    """

    def __init__(self, net: nn.Module, layer: str) -> None:
        super().__init__()
        named = [name for name, _ in net.named_modules() if name == layer or name.endswith(f".{layer}")]
        if len(named) != 1:
            which = f"{len(named)} of that name: {', '.join(named[:3])}" if named else "none of that name"
            raise UnusableInput(f"expected the name of one layer, such as {_last_map(net)}; {layer}: there are {which}")
        self.net = net
        self.place = named[0]

    def forward(self, x: Tensor) -> Tensor:
        said: list[object] = []
        handle = self.net.get_submodule(self.place).register_forward_hook(lambda layer, given, out: said.append(out))
        try:
            self.net(x)
        finally:
            handle.remove()
        if not said or not isinstance(out := said[-1], torch.Tensor) or len(out) != len(x):
            raise UnusableInput(f"expected a layer that gives one tensor a sample; {self.place} does not")
        return out.flatten(1)


def _last_map(net: nn.Module) -> str:
    """An example for people: the last convolution's name."""
    names = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    return names[-1] if names else "one of its modules"
