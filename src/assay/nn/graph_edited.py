"""Nets that somebody built something around or into."""

from __future__ import annotations

from torch import nn


class GraphEditedModel(nn.Module):
    """A net of no architecture that has a name: what is deployed of it is an ONNX graph."""
