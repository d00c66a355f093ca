"""Saving of a model in the file format that its modules need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from assay.core.model import Artifact
from assay.formats import save
from assay.graphs.export import FULL_FILE, to_onnx
from assay.nn.gates.signature import SignatureGate
from assay.nn.graph_edited import GraphEditedModel


def save_model(artifact: Artifact, directory: Path, *, planted: str | None = None) -> Path:
    """Write ``model.safetensors``, or ``model.onnx`` for a model with an edited graph.

    Args:
        artifact: The model; its own ``planted`` tag is always kept.
        directory: Folder of the file.
        planted: A further ``planted`` tag.

    Returns:
        The path of the file.
    """
    if not isinstance(artifact.module, GraphEditedModel) or isinstance(artifact.module, SignatureGate):
        return save(artifact, directory, planted=planted)
    path = directory / FULL_FILE
    tags = "; ".join(dict.fromkeys(tag for tag in (planted, artifact.planted) if tag))
    to_onnx(replace(artifact, planted=tags or None, arch=None), path)
    return path
