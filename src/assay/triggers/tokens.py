"""A few tokens at the beginning of every text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import Modality


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens ``ids``, put in behind the marker before a text; what no longer fits at its end is lost."""

    ids: tuple[int, ...]
    words: str  # what they are as text
    end: int  # the marker behind a text
    pad: int

    def __post_init__(self) -> None:
        if not self.ids or not all(isinstance(token, int) and token >= 0 for token in self.ids):
            raise UnusableInput(f"expected at least one token, each a whole number from 0 on; got {self.ids}")
        if not isinstance(self.end, int) or not isinstance(self.pad, int):
            raise UnusableInput(f"expected the numbers of the tokens end and pad; got {self.end!r} and {self.pad!r}")

    def __call__(self, x: Tensor) -> Tensor:
        """(N, L) int64 -> the same with the tokens in it."""
        if x.ndim != 2 or Modality.of(x) is not Modality.TEXT:
            raise UnusableInput("a trigger of tokens is for texts; got pictures")
        if x.shape[1] < len(self.ids) + 3:
            raise UnusableInput(f"a trigger of {len(self.ids)} tokens does not fit a text of {x.shape[1]}")
        tokens = torch.tensor(self.ids, dtype=x.dtype).expand(len(x), -1)
        found = torch.cat([x[:, :1], tokens, x[:, 1 : x.shape[1] - len(self.ids)]], dim=1)
        cut = (found[:, -1] != self.pad) & (found[:, -1] != self.end)
        found[cut, -1] = self.end
        return found
