"""Comparison of an ONNX file's torch surrogate with ONNX Runtime, on images as the model gets them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import Artifact
from assay.formats.onnx.external_data import embed_external_data
from assay.formats.onnx.runtime import OnnxRuntimeModule
from assay.formats.onnx.to_torch import onnx_to_torch
from assay.formats.shape import Shape

if TYPE_CHECKING:
    import onnx

COMPARED_IMAGES = 64  # images of each comparison
LARGE_IMAGE = 64 * 64  # pixels; of larger images an eighth as many are compared
MIN_AGREEMENT = 0.9  # fraction of equal classes; below, the surrogate is another model
NOTE = "for gradients it runs in torch: "  # begin of the note on a surrogate
OTHER_CLASS = "in torch it predicts another class than ONNX Runtime on"


class OnnxSurrogate(nn.Module):
    """The function of an ONNX Runtime module in torch, with gradients."""

    def __init__(self, net: OnnxRuntimeModule, graph: nn.Module) -> None:
        super().__init__()
        self.net, self.program = net, graph  # torch.fx reserves the name `graph`

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch."""
        return self.net.run_in_graph_layout(self.program, x)


@dataclass(frozen=True)
class Gradients:
    """The surrogate with a note on its agreement, or the reason for its absence."""

    surrogate: nn.Module | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""


def convert(model: onnx.ModelProto, module: nn.Module, x: Tensor) -> Gradients:
    """Convert a graph to torch, and compare the classes of both.

    Args:
        model: The model of the file.
        module: Its ONNX Runtime module, with what lies in front of it.
        x: Images (N, C, H, W) in [0, 1].
    """
    session = session_of(module)
    try:
        graph = onnx_to_torch(model, session.path.parent, source=session.input, result=session.output)
        surrogate = _with_surrogate(module, session, OnnxSurrogate(session, graph)).eval()
    except Exception as error:  # the operators in torch can fail on a graph in any way
        return _no_gradients(error)
    return compare(surrogate, module, x)


def compare(surrogate: nn.Module, module: nn.Module, x: Tensor) -> Gradients:
    """Compare the classes of a surrogate with those of ONNX Runtime.

    Args:
        surrogate: The surrogate.
        module: The ONNX Runtime module, with what lies in front of it.
        x: Images (N, C, H, W) in [0, 1].
    """
    try:
        with torch.no_grad():
            same = int((surrogate(x).argmax(1) == module(x).argmax(1)).sum())
    except Exception as error:  # as above
        return _no_gradients(error)
    if same < MIN_AGREEMENT * len(x):
        return Gradients(reason=f"{OTHER_CLASS} {len(x) - same} of {len(x)} images")
    return Gradients(surrogate, (f"{NOTE}the class of ONNX Runtime on {same} of {len(x)} images",))


def _no_gradients(error: Exception) -> Gradients:
    if isinstance(error, UnusableInput):
        return Gradients(reason=str(error))
    return Gradients(reason=f"the graph does not run in torch: {first_line(error)}")


def repeat_comparison(artifact: Artifact, x: Tensor) -> Artifact:
    """Repeat the comparison on clean samples: they decide, because synthetic images may lie outside of the domain.

    Args:
        artifact: The model, loaded from an ONNX file or not.
        x: Clean samples (N, C, H, W).

    Returns:
        The artifact with the surrogate, or with the reason for its absence. Other models stay unchanged.
    """
    rejected = artifact.surrogate is None and artifact.no_gradient_reason.startswith(OTHER_CLASS)
    if artifact.differentiable or not len(x) or not (rejected or artifact.surrogate is not None):
        return artifact
    x = x[: compared_images(artifact.image_spec.shape)]
    if artifact.surrogate is not None:
        found = compare(artifact.surrogate, artifact.module, x)
    else:
        found = _convert_again(artifact.module, x)
    notes = tuple(note.replace("images", "clean samples") for note in found.notes)
    if not notes:
        notes = (f"no gradients: {found.reason}".replace("images", "clean samples"),)
    return replace(
        artifact,
        surrogate=found.surrogate,
        no_gradient_reason=found.reason.replace("images", "clean samples"),
        notes=(*notes, *(note for note in artifact.notes if not note.startswith(NOTE))),
    )


def _convert_again(module: nn.Module, x: Tensor) -> Gradients:
    """Convert the graph of a module, whose surrogate was rejected on other images."""
    from assay.formats.onnx.read import read_onnx_model

    path = session_of(module).path
    model = read_onnx_model(path)
    embed_external_data(model, path)
    return convert(model, module, x)


def session_of(module: nn.Module) -> OnnxRuntimeModule:
    """Return the ONNX Runtime module in a module."""
    return next(part for part in module.modules() if isinstance(part, OnnxRuntimeModule))


def compared_images(shape: Shape) -> int:
    """Return the number of images (C, H, W) to compare."""
    return COMPARED_IMAGES if shape[1] * shape[2] <= LARGE_IMAGE else COMPARED_IMAGES // 8


def synthetic_images(count: int, shape: Shape) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] of coarse and fine noise, the same in every call.

    Args:
        count: Number N of images.
        shape: (C, H, W).
    """
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    fine = torch.rand(count, channels, height, width, generator=generator)
    return 0.7 * nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * fine


def _with_surrogate(module: nn.Module, session: OnnxRuntimeModule, surrogate: nn.Module) -> nn.Module:
    """Return a copy of a module with the surrogate in place of the session."""
    if module is session:
        return surrogate
    copied = copy.deepcopy(module)  # copies share the session
    for part in list(copied.modules()):
        if getattr(part, "net", None) is session:
            part.net = surrogate
    return copied
