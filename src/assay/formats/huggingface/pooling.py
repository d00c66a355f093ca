"""Pooling: reduction of a transformers encoder's states to one embedding per input."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.formats.shape import Shape

# The model's own pooled output; the state of the first token; the mean over tokens or positions.
Pooling = Literal["pooler", "cls", "mean"]


def parse_pooling(text: str | None) -> Pooling | None:
    """Return the pooling of a name, None for None; raise UnusableInput for an unknown name."""
    if text is not None and text not in get_args(Pooling):
        raise UnusableInput(f"expected a pooling of {', '.join(get_args(Pooling))}; got {text!r}")
    return text  # type: ignore[return-value]


def choose_pooling(model: nn.Module, shape: Shape, given: Pooling | None, where: str) -> Pooling:
    """Return the pooling of an image encoder: the given one, else the model's own.

    Args:
        model: A transformers model.
        shape: (C, H, W) of its images.
        given: Pooling of the user.
        where: Name of the model in error messages.

    Raises:
        UnusableInput: The model has no such pooling, or none of its own and none is given.
    """
    output = _output_of(model, shape, where)
    states, pooler = (getattr(output, name, None) for name in ("last_hidden_state", "pooler_output"))
    if given is None and pooler is None and isinstance(states, Tensor) and states.ndim == 3:
        raise UnusableInput(
            f"{where}: expected an encoder with a pooling, got one that does not pool its {states.shape[1]} tokens. "
            "Fix: give the pooling of its training, cls or mean."
        )
    pooling: Pooling = given or ("mean" if pooler is None else "pooler")
    if not isinstance(pooler if pooling == "pooler" else states, Tensor):
        raise UnusableInput(f"{where}: has no output for the pooling {pooling}. Fix: give another one.")
    if pooling == "cls" and isinstance(states, Tensor) and states.ndim == 4:
        raise UnusableInput(f"{where}: has positions, not tokens, and so none for the pooling cls. Fix: give mean.")
    return pooling


def _output_of(model: nn.Module, shape: Shape, where: str) -> Any:
    try:
        with torch.no_grad():
            return model(pixel_values=torch.zeros(1, *shape))
    except Exception as error:  # configs fail in as many ways as there are models
        raise UnusableInput(f"{where}: does not run on an image of {shape}: {first_line(error)}") from None
