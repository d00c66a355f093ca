"""``.onnx`` files, float32 or quantized (QDQ): logits from ONNX Runtime, gradients from a conversion to torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import Artifact, ImageSpec
from assay.formats.describe import describe
from assay.formats.file_digests import with_digests
from assay.formats.metadata import ModelMetadata
from assay.formats.normalization import UNKNOWN_NORMALIZATION
from assay.formats.onnx.read import external_files_of, read_onnx_model
from assay.formats.onnx.runtime import OnnxRuntimeModule
from assay.formats.onnx.to_torch import onnx_to_torch
from assay.formats.onnx.weights import read_stored_weights
from assay.formats.options import LoadOptions
from assay.formats.shape import Shape

if TYPE_CHECKING:
    import onnx

FORMAT = "onnx"
COMPARED_IMAGES = 64  # images for the comparison of the surrogate with ONNX Runtime
LARGE_IMAGE = 64 * 64  # pixels; of larger images an eighth as many are compared
MIN_AGREEMENT = 0.9  # fraction of equal classes; below, the surrogate is another model


class OnnxSurrogate(nn.Module):
    """The function of an ONNX Runtime module in torch, with gradients."""

    def __init__(self, net: OnnxRuntimeModule, graph: nn.Module) -> None:
        super().__init__()
        self.net, self.program = net, graph  # torch.fx reserves the name `graph`

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch."""
        return self.net.run_in_graph_layout(self.program, x)


@dataclass(frozen=True)
class _Gradients:
    """The surrogate with a note on its agreement, or the reason for its absence."""

    surrogate: nn.Module | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""


def load_onnx(path: Path, options: LoadOptions) -> Artifact:
    """Load an ONNX file with one float input (N, C, H, W) or (N, H, W, C) and logits (N, K) as its output.

    The graph takes [0, 1] unless its metadata (``assay.mean``, ``assay.std``) or the options state otherwise.

    Args:
        path: The file.
        options: Options of the user. The shape is needed only if the graph leaves it open.

    Raises:
        UnusableInput: The file is malformed, or ONNX Runtime cannot run it on images.
    """
    model = read_onnx_model(path)
    stated = ModelMetadata.read({entry.key: entry.value for entry in model.metadata_props}, str(path))
    session, weights = OnnxRuntimeModule(path), read_stored_weights(model, path)
    known = stated.inputs if isinstance(stated.inputs, ImageSpec) else None
    inputs = ImageSpec(options.shape) if options.shape else known or ImageSpec(session.shape())
    normalization = options.normalization or stated.normalization

    def normalized(module: nn.Module) -> nn.Module:
        return (module if normalization is None else normalization.around(module, inputs.shape[0])).eval()

    gradients = _convert(model, session, path, inputs.shape)
    artifact = describe(
        normalized(session),
        inputs,
        class_names=stated.class_names,
        format=FORMAT,
        name=path.resolve().parent.name if path.name == "model.onnx" else path.stem,
    )
    unknown = normalization is None and stated.inputs is None  # files of assay contain their normalization
    return replace(
        with_digests(artifact, path, [path, *external_files_of(model, path)]),
        notes=(*gradients.notes, UNKNOWN_NORMALIZATION) if unknown else gradients.notes,
        normalization_unknown=unknown,
        planted=stated.planted,
        arch=stated.arch,
        differentiable=False,
        surrogate=None if gradients.surrogate is None else normalized(gradients.surrogate),
        no_gradient_reason=gradients.reason,
        weights=weights.values,
        quantization_scales=weights.scales,
    )


def _convert(model: onnx.ModelProto, session: OnnxRuntimeModule, path: Path, shape: Shape) -> _Gradients:
    """Convert the graph to torch, and compare the classes of both on synthetic images."""
    count = COMPARED_IMAGES if shape[1] * shape[2] <= LARGE_IMAGE else COMPARED_IMAGES // 8
    x = synthetic_images(count, shape)
    try:
        graph = onnx_to_torch(model, path.parent, source=session.input.name, result=session.output)
        surrogate = OnnxSurrogate(session, graph).eval()
        with torch.no_grad():
            same = int((surrogate(x).argmax(1) == session(x).argmax(1)).sum())
    except UnusableInput as error:
        return _Gradients(reason=str(error))
    except Exception as error:  # the operators in torch can fail on a graph in any way
        return _Gradients(reason=f"the graph does not run in torch: {first_line(error)}")
    if same < MIN_AGREEMENT * count:
        return _Gradients(
            reason=f"in torch it predicts another class than ONNX Runtime on {count - same} of {count} images"
        )
    note = f"for gradients it runs in torch: the class of ONNX Runtime on {same} of {count} images"
    return _Gradients(surrogate, (note,))


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
