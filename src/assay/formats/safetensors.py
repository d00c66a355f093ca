"""Bare ``.safetensors`` files: an architecture by name or from the user's own factory, and fitting weights.

An architecture is a name of ``assay.nn.architectures`` or ``package.module:function``, the user's own factory of an
``nn.Module``. A factory with a parameter ``num_classes``, or with one required parameter, gets the number of classes;
the file's weights determine it. Any other factory is called without arguments. Sources of the input shape (C, H, W), in
this order:

* the given shape,
* the file's metadata ``assay.shape``,
* an attribute ``input_shape`` of the factory or of the model,
* a ``preprocessor_config.json`` or ``config.json`` next to the file,
* a guess, with a note: the channels of its first convolution, and the first accepted size of 32, 28, 64, 96, 128, 224
  pixels.

Sources of the normalization: the given mean and std, the metadata, the same files next to it, the architecture. Without
any, the model takes [0, 1]. A note tells which one of the last three applies where they differ.

Files written by assay contain all these facts in their metadata and need no architecture. The user's own factory is the
exception: a file must not choose code to run, so its name has to be given again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec, InputSpec, TextSpec
from assay.formats.adapt import select_logits
from assay.formats.arch import factory_of, guess_shape, stated_shape
from assay.formats.describe import describe
from assay.formats.feature_extractor import rebuild_feature_extractor
from assay.formats.file_digests import with_digests
from assay.formats.huggingface import saved
from assay.formats.metadata import ModelMetadata
from assay.formats.normalization import UNKNOWN_NORMALIZATION, Normalization
from assay.formats.options import LoadOptions, refuse_output
from assay.formats.outputs import unexamined_note
from assay.formats.safetensors_check import Weights, read_weights
from assay.formats.shape import Shape, format_shape, refuse_length
from assay.formats.siblings import SiblingMetadata, sibling_metadata
from assay.formats.state_dict import build_from_state_dict
from assay.io.atomic import write_atomically
from assay.nn.architectures import ARCHITECTURES
from assay.nn.encoders import HEAD_PREFIX, EncoderClassifier
from assay.nn.gates.signature import rebuild_gate
from assay.nn.normalized import Normalized
from assay.nn.saving import SaveableWrapper

FORMAT = "safetensors"
FILE_NAME = "model.safetensors"

# Functions that rebuild the outer wrappers of a loaded model, innermost first. Each returns the artifact unchanged
# unless the metadata names its wrapper. Wrappers save themselves: see ``assay.nn.saving``.
REBUILDERS = (rebuild_gate, rebuild_feature_extractor)


@dataclass(frozen=True)
class _Body:
    """A model without its normalization and head."""

    module: nn.Module
    inputs: InputSpec
    normalization: Normalization | None = None  # of the architecture
    notes: tuple[str, ...] = ()  # guesses
    encoder: bool = False
    unexamined: tuple[str, ...] = ()  # outputs besides the logits


@dataclass(frozen=True)
class _Sources:
    """Facts from outside of the file."""

    options: LoadOptions  # of the user
    siblings: SiblingMetadata  # in the files next to it


def load_safetensors(path: Path, options: LoadOptions) -> Artifact:
    """Load a safetensors file with the given architecture, or with the one in its metadata.

    Args:
        path: The file.
        options: Options of the user. The metadata comes second.

    Raises:
        UnusableInput: The file is malformed, or does not fit the architecture or the options.
    """
    weights, where = read_weights(path), str(path)
    stated = ModelMetadata.read(weights.metadata, where)
    if isinstance(stated.inputs, TextSpec):
        stated = replace(stated, inputs=replace(stated.inputs, shape=(options.length or stated.inputs.length,)))
    else:
        refuse_length(options.length, where)
    arch = _arch(path, options.arch, stated.arch)
    build = _build_transformers if arch == saved.ARCH else _build_architecture
    siblings = SiblingMetadata() if stated.inputs is not None else sibling_metadata(path, options)
    body = build(path, arch, weights, stated, _Sources(options, siblings))
    module, notes, unknown = body.module, body.notes, False
    if isinstance(body.inputs, ImageSpec):
        module, more, unknown = _normalize(body, options.normalization or stated.normalization, siblings)
        notes = (*notes, *siblings.notes, *more)
    head = _head(weights, where) if arch == saved.ARCH else None
    artifact = describe(
        (module if head is None else EncoderClassifier(module, head)).eval(),
        body.inputs,
        class_names=stated.class_names or siblings.class_names,
        format=FORMAT,
        name=path.resolve().parent.name if path.name == FILE_NAME else path.stem,
        encoder=body.encoder and head is None,
    )
    artifact = replace(
        with_digests(artifact, path, [path]),
        arch=arch,
        planted=stated.planted,
        unexamined_outputs=body.unexamined,
        notes=(*artifact.notes, *notes),
        normalization_unknown=unknown,
    )
    for rebuild in REBUILDERS:
        artifact = rebuild(artifact, weights.metadata, where)
    return artifact


def save_safetensors(artifact: Artifact, directory: Path, *, planted: str | None) -> Path:
    """Write a model's weights, with all metadata for ``load_safetensors``; see ``assay.formats.save``."""
    from safetensors.torch import save

    if not artifact.differentiable:
        raise UnusableInput(f"{artifact.name}: a {artifact.format} model cannot be saved as safetensors; copy its file")
    images = isinstance(artifact.inputs, ImageSpec)
    marks = [mark for mark in (artifact.planted, planted) if mark]
    metadata = ModelMetadata(
        arch=artifact.arch,
        planted="; ".join(dict.fromkeys(marks)) or None,
        inputs=artifact.inputs,
        normalization=Normalization.identity(artifact.image_spec.shape[0]) if images else None,
        class_names=artifact.class_names,
    ).as_text()
    module, wrapper_tensors = artifact.module, dict[str, Tensor]()
    while isinstance(module, SaveableWrapper):
        part = module.to_saved(artifact.num_classes)
        metadata |= part.metadata
        wrapper_tensors |= part.tensors
        module = part.module
    # Clones, because safetensors refuses tensors that share memory.
    tensors = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in {**module.state_dict(), **wrapper_tensors}.items()
    }
    path = Path(directory) / FILE_NAME
    write_atomically(path, save(tensors, metadata=metadata), parents=True)
    return path


def _arch(path: Path, given: str | None, stated: str | None) -> str:
    """Return the architecture's name: the given one, else the file's, unless it names the user's own code."""
    if given is not None:
        return given
    if stated is None:
        raise UnusableInput(
            f"{path}: expected an architecture for a bare safetensors file, got none. "
            f"Fix: give one of {', '.join(ARCHITECTURES)}, or your own package.module:function."
        )
    if stated not in ARCHITECTURES and stated != saved.ARCH:
        raise UnusableInput(
            f"{path}: expected an architecture of assay, got a file for {stated!r}. "
            f"Fix: give the architecture {stated}."
        )
    return stated


def _given_inputs(path: Path, stated: ModelMetadata, shape: Shape | None) -> InputSpec | None:
    """Return the input specification of the user or of the file, None without one."""
    if shape is not None and isinstance(stated.inputs, TextSpec):
        raise UnusableInput(f"{path}: expected one number of tokens as shape of a text model, got {shape}")
    return stated.inputs if shape is None else ImageSpec(shape)


def _build_transformers(path: Path, arch: str, weights: Weights, stated: ModelMetadata, sources: _Sources) -> _Body:
    """Return the transformers model in a file of assay."""
    refuse_output(sources.options.output, str(path))
    inputs = _given_inputs(path, stated, sources.options.shape)
    if inputs is None or saved.CONFIG_KEY not in weights.metadata:
        raise UnusableInput(
            f"{path}: expected a file written by assay for the architecture {arch}, got another. "
            "Fix: give the model's directory."
        )
    tensors = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(HEAD_PREFIX)}
    module, encoder = saved.rebuild(Weights(tensors, weights.metadata), inputs, str(path))
    return _Body(module, inputs, encoder=encoder)


def _build_architecture(path: Path, arch: str, weights: Weights, stated: ModelMetadata, sources: _Sources) -> _Body:
    """Return the model of a named architecture with the file's weights."""
    given = _given_inputs(path, stated, sources.options.shape)
    factory = factory_of(arch, path)
    module = build_from_state_dict(factory, weights.tensors, str(path))
    if given is not None and not isinstance(given, ImageSpec):
        raise UnusableInput(f"{path}: its metadata describes a {given.modality} model, and {arch} takes images")
    inputs, notes = (given, ()) if given is not None else _find_inputs(module, factory.shape, sources.siblings)
    module, unused = select_logits(module, inputs.shape, sources.options.output)
    notes = (*notes, *unexamined_note(unused))
    return _Body(module, inputs, factory.normalization, notes, unexamined=unused)


def _head(weights: Weights, where: str) -> nn.Linear | None:
    """Return the linear layer behind an encoder, None without one."""
    weight, bias = (weights.tensors.get(f"{HEAD_PREFIX}{name}") for name in ("weight", "bias"))
    if weight is None and bias is None:
        return None
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise UnusableInput(f"{where}: expected a last layer of weights (K, D) and K biases, got other tensors")
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return head


def _find_inputs(
    module: nn.Module, known: Shape | None, siblings: SiblingMetadata
) -> tuple[ImageSpec, tuple[str, ...]]:
    """Return the input specification if neither user nor file gives one, and a note on its source."""
    stated, beside = known or stated_shape(module), siblings.inputs
    if beside is not None and stated in (None, beside.shape):
        return beside, (siblings.size_note(),)
    if stated is not None:
        if beside is None:
            return ImageSpec(stated), ()
        note = f"the input size {format_shape(stated)} is the architecture's; {siblings.source} states another"
        return ImageSpec(stated), (f"{note}: {format_shape(beside.shape)}. Fix: give the shape.",)
    shape, notes = guess_shape(module)
    return ImageSpec(shape), notes


def _normalize(
    body: _Body, given: Normalization | None, siblings: SiblingMetadata
) -> tuple[nn.Module, tuple[str, ...], bool]:
    """Return the model with its normalization in front, notes on its source, and whether it is unknown.

    Args:
        body: The model.
        given: Normalization of the user or of the file.
        siblings: Facts in the files next to the file.
    """
    assert isinstance(body.inputs, ImageSpec)
    channels = body.inputs.shape[0]
    if given is not None:
        return given.around(body.module, channels), (), False
    own, beside = isinstance(body.module, Normalized), siblings.normalization
    if beside is not None and not own and not siblings.flip:
        note = () if body.normalization == beside else (siblings.normalization_note(),)
        return siblings.normalize(body.module, channels), note, False
    known = body.normalization
    unknown = known is None and not own
    notes = (UNKNOWN_NORMALIZATION,) if unknown else ()
    if beside is not None:
        reason = "it is for BGR images. Fix: export the model to ONNX" if siblings.flip else "the model has its own"
        notes = (f"the normalization in {siblings.source} next to the model is not used: {reason}", *notes)
    return (known or Normalization.identity(channels)).around(body.module, channels), notes, unknown
