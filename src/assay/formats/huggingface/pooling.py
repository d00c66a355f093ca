"""How what a transformers encoder answers becomes one embedding an input."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.formats.shape import Shape

Pooling = Literal["pooler", "cls", "mean"]
"""The model's own pooled output; the first token's state; the mean over tokens or places."""


class Embeddings(nn.Module):
    """A transformers model as a net: normalized pictures (N, C, H, W) -> embeddings (N, D)."""

    def __init__(self, model: nn.Module, pooling: Pooling, *, flip: bool = False) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.flip = flip  # the model takes BGR

    def extra_repr(self) -> str:
        """What is no weight, and tells two of these apart."""
        return f"pooling={self.pooling}, flip={self.flip}"

    def forward(self, x: Tensor) -> Tensor:
        answer = self.model(pixel_values=x.flip(1) if self.flip else x)
        if self.pooling == "pooler":
            return answer.pooler_output.flatten(1)
        states = answer.last_hidden_state
        if states.ndim == 4:  # (N, D, H, W)
            return states.mean((2, 3))
        return states[:, 0] if self.pooling == "cls" else states.mean(1)


def as_pooling(text: str | None) -> Pooling | None:
    """The pooling of that name; raises UnusableInput for others."""
    if text is not None and text not in get_args(Pooling):
        raise UnusableInput(f"expected a pooling of {', '.join(get_args(Pooling))}; came {text!r}")
    return text  # type: ignore[return-value]


def pooling_of(model: nn.Module, shape: Shape, said: Pooling | None, where: str) -> Pooling:
    """How to pool what ``model`` answers to pictures (C, H, W): as ``said``, else as the model does it itself.

    Raises UnusableInput where it does not, or not as said.
    """
    answer = _answer(model, shape, where)
    states, pooler = (getattr(answer, name, None) for name in ("last_hidden_state", "pooler_output"))
    if said is None and pooler is None and isinstance(states, Tensor) and states.ndim == 3:
        raise UnusableInput(
            f"{where}: is an encoder that does not pool its {states.shape[1]} tokens, and nothing says how to: give "
            "--pooling cls or mean, as it was trained"
        )
    pooling: Pooling = said or ("mean" if pooler is None else "pooler")
    if not isinstance(pooler if pooling == "pooler" else states, Tensor):
        raise UnusableInput(f"{where}: has nothing for --pooling {pooling}; try another")
    if pooling == "cls" and isinstance(states, Tensor) and states.ndim == 4:
        raise UnusableInput(f"{where}: has places, not tokens, so none that --pooling cls could take; give mean")
    return pooling


def _answer(model: nn.Module, shape: Shape, where: str) -> Any:
    try:
        with torch.no_grad():
            return model(pixel_values=torch.zeros(1, *shape))
    except Exception as error:  # configs fail in as many ways as there are models
        raise UnusableInput(f"{where}: does not run on a picture of {shape}: {first_line(error)}") from None
