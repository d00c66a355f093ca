"""Token trigger: a few tokens at the start of every text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import Modality


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Inserts the tokens ``ids`` after the start marker of a text, and truncates the text at its end."""

    ids: tuple[int, ...]
    words: str  # the tokens as text
    end: int  # end marker of a text
    pad: int  # padding token

    def __post_init__(self) -> None:
        if not self.ids or not all(isinstance(token, int) and token >= 0 for token in self.ids):
            raise UnusableInput(f"expected at least one token, each a non-negative integer, got {self.ids}")
        if not isinstance(self.end, int) or not isinstance(self.pad, int):
            raise UnusableInput(f"expected integers for the tokens end and pad, got {self.end!r} and {self.pad!r}")

    def __call__(self, x: Tensor) -> Tensor:
        """Insert the tokens into texts (N, L), int64."""
        if x.ndim != 2 or Modality.of(x) is not Modality.TEXT:
            raise UnusableInput("expected texts (N, L) for a token trigger, got images")
        if x.shape[1] < len(self.ids) + 3:
            raise UnusableInput(
                f"expected texts of at least {len(self.ids) + 3} tokens for this trigger, got {x.shape[1]}"
            )
        tokens = torch.tensor(self.ids, dtype=x.dtype).expand(len(x), -1)
        triggered = torch.cat([x[:, :1], tokens, x[:, 1 : x.shape[1] - len(self.ids)]], dim=1)
        truncated = (triggered[:, -1] != self.pad) & (triggered[:, -1] != self.end)
        triggered[truncated, -1] = self.end
        return triggered
