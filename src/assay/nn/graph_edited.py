"""Base class of models with extra operators around or inside the trained layers."""

from __future__ import annotations

from torch import nn


class GraphEditedModel(nn.Module):
    """Model without a named architecture; its deployed file is an ONNX graph."""
