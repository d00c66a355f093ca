"""``.onnx`` files, float32 or quantized: logits from ONNX Runtime, gradients from a conversion to torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec
from assay.formats.describe import describe
from assay.formats.file_digests import with_digests
from assay.formats.metadata import ModelMetadata
from assay.formats.normalization import UNKNOWN_NORMALIZATION, Normalization
from assay.formats.onnx.agreement import compared_images, convert, synthetic_images
from assay.formats.onnx.external_data import embed_external_data, external_files_of
from assay.formats.onnx.read import read_onnx_model
from assay.formats.onnx.runtime import OnnxRuntimeModule
from assay.formats.onnx.saturation import saturation_notes
from assay.formats.onnx.session import start_session
from assay.formats.onnx.signature import GraphSignature, ImageInput, find_image_input, find_signature
from assay.formats.onnx.weights import read_stored_weights
from assay.formats.options import LoadOptions
from assay.formats.shape import format_shape
from assay.formats.siblings import SiblingMetadata, sibling_metadata

if TYPE_CHECKING:
    import onnx

FORMAT = "onnx"


@dataclass(frozen=True)
class _Preprocessing:
    """Conversion of images for a file, and notes on its sources."""

    inputs: ImageSpec
    wrap: Callable[[nn.Module], nn.Module]  # puts the normalization in front
    unknown: bool  # no source states the normalization
    notes: tuple[str, ...]


def load_onnx(path: Path, options: LoadOptions) -> Artifact:
    """Load an ONNX file with one input of images and logits (N, K) among its outputs.

    The input is (N, C, H, W) or (N, H, W, C), floats or uint8. Sources of size and normalization, in this order: the
    options, the file's metadata (``assay.shape``, ``assay.mean``, ``assay.std``), the files next to it, the graph.

    Args:
        path: The file.
        options: Options of the user. The shape is needed only if no source states it.

    Raises:
        UnusableInput: The file is malformed, or ONNX Runtime cannot run it on images, or its use is unclear.
    """
    model = read_onnx_model(path)
    stated = ModelMetadata.read({entry.key: entry.value for entry in model.metadata_props}, str(path))
    siblings = SiblingMetadata() if stated.inputs is not None else sibling_metadata(path, options)
    files = external_files_of(model, path)
    embed_external_data(model, path)
    weights = read_stored_weights(model, path)
    try:
        session = start_session(path)
        signature, prepared = _examine(session, model, path, options, (stated, siblings))
    except UnusableInput as error:
        text = str(error)
        raise (error if text.startswith(str(path)) else UnusableInput(f"{path}: {text}")) from None
    module = prepared.wrap(OnnxRuntimeModule(path, signature, session=session)).eval()
    gradients = convert(model, module, synthetic_images(compared_images(prepared.inputs.shape), prepared.inputs.shape))
    artifact = describe(
        module,
        prepared.inputs,
        class_names=stated.class_names or siblings.class_names,
        format=FORMAT,
        name=path.resolve().parent.name if path.name == "model.onnx" else path.stem,
    )
    return replace(
        with_digests(artifact, path, [path, *files]),
        notes=(*artifact.notes, *signature.notes, *gradients.notes, *saturation_notes(model, weights), *prepared.notes),
        normalization_unknown=prepared.unknown,
        unexamined_outputs=signature.unexamined,
        planted=stated.planted,
        arch=stated.arch,
        differentiable=False,
        surrogate=gradients.surrogate,
        no_gradient_reason=gradients.reason,
        weights=weights.values,
        quantization_scales=weights.scales,
    )


def _examine(
    session: Any,
    model: onnx.ModelProto,
    path: Path,
    options: LoadOptions,
    metadata: tuple[ModelMetadata, SiblingMetadata],
) -> tuple[GraphSignature, _Preprocessing]:
    """Return the use of a file's input and output, and the conversion of images for it.

    Args:
        session: ONNX Runtime session of the file.
        model: Its model.
        path: The file.
        options: Options of the user.
        metadata: Facts in the file, and in the files next to it.
    """
    stated, siblings = metadata
    image = find_image_input(session, model)
    inputs, notes = _image_spec(image, options, stated, siblings)
    signature = find_signature(session, image, inputs.shape, options.output, path)
    normalization = options.normalization or stated.normalization
    if image.dtype == "uint8":
        return signature, _eight_bit(inputs, normalization, siblings, notes)
    if normalization is not None:
        given = normalization
        return signature, _Preprocessing(inputs, lambda m: given.around(m, inputs.shape[0]), False, notes)
    if siblings.normalization is not None:
        notes = (*notes, siblings.normalization_note(), *siblings.notes)
        wrap = _Preprocessing(inputs, lambda m: siblings.normalize(m, inputs.shape[0]), False, notes)
        return signature, wrap
    unknown = stated.inputs is None  # files of assay contain their normalization
    notes = (*notes, *siblings.notes, *((UNKNOWN_NORMALIZATION,) if unknown else ()))
    return signature, _Preprocessing(inputs, lambda m: m, unknown, notes)


def _eight_bit(
    inputs: ImageSpec, normalization: Normalization | None, siblings: SiblingMetadata, notes: tuple[str, ...]
) -> _Preprocessing:
    """Return the conversion for a file that takes whole numbers from 0 to 255, and so normalizes them itself."""
    if normalization is not None:
        raise UnusableInput(
            "expected no mean and std for a file with an 8-bit input (uint8), which normalizes the images itself. "
            "Fix: leave them out."
        )
    if siblings.normalization is not None:
        notes = (*notes, f"the normalization in {siblings.source} is not used, because the input is 8-bit")
    wrap = siblings.normalize if siblings.flip and siblings.normalization is None else None
    return _Preprocessing(inputs, (lambda m: wrap(m, inputs.shape[0])) if wrap else (lambda m: m), False, notes)


def _image_spec(
    image: ImageInput, options: LoadOptions, stated: ModelMetadata, siblings: SiblingMetadata
) -> tuple[ImageSpec, tuple[str, ...]]:
    """Return the input specification and notes on its source."""
    fixed = image.fixed_shape()
    known = stated.inputs if isinstance(stated.inputs, ImageSpec) else None
    if options.shape is not None:
        beside = siblings.inputs
        return (beside if beside is not None and beside.shape == options.shape else ImageSpec(options.shape)), ()
    if known is not None:
        return known, ()
    if siblings.inputs is not None and fixed in (None, siblings.inputs.shape):
        return siblings.inputs, (siblings.size_note(),)
    if fixed is not None:
        if siblings.inputs is None:
            return ImageSpec(fixed), ()
        other = format_shape(siblings.inputs.shape)
        return ImageSpec(fixed), (f"the input size {format_shape(fixed)} is the file's; {siblings.source} has {other}",)
    reasons = "".join(f" ({note})" for note in siblings.notes)
    raise UnusableInput(
        f"expected an input of fixed channels, height and width, got {list(image.sides)}{reasons}. "
        "Fix: give the shape (C, H, W), or set its metadata assay.shape to [channels, height, width]."
    )
