"""Bare ``.safetensors`` files: an architecture by name or from the user's own factory, and weights that must fit it.

``--arch`` is a name of ``assay.nn.ARCHITECTURES`` or ``package.module:function``, the user's own factory of an
``nn.Module``. A factory with a parameter ``num_classes`` (or with one required parameter) gets the number of classes,
which is read off the file; any other is called without arguments. The input's shape (C, H, W) of such a net comes from
``--shape``, else from the file's metadata ``assay.shape``, else from an attribute ``input_shape`` of the factory or of
the net, else from a ``preprocessor_config.json`` or ``config.json`` beside the file, else it is a guess, and said to be
one: the channels of its first convolution and the first of 32, 28, 64, 96, 128, 224 pixels on which it runs. Such a net
takes [0, 1] unless metadata or ``--mean`` and ``--std`` say otherwise.

Files that assay wrote say all of that in their own metadata and need no ``--arch`` - except for a user's own factory:
a file must not choose which code runs, so that name has to be given again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec, InputSpec, TextSpec
from assay.formats.adapt import Picked, with_logits
from assay.formats.arch import factory_of, guess_shape, stated_shape
from assay.formats.describe import describe
from assay.formats.feature_extractor import to_feature_extractor
from assay.formats.huggingface.pooling import Embeddings
from assay.formats.huggingface.text import TextEmbeddings
from assay.formats.metadata import ModelMetadata
from assay.formats.normalization import AS_IT_IS, Normalization
from assay.formats.safetensors_check import Weights, read_weights
from assay.formats.shape import Shape, refuse_length, written
from assay.formats.sidecar_config import inputs_beside
from assay.formats.state_dict import build_from_state_dict
from assay.io.atomic import write_atomically
from assay.io.files import sha256_of
from assay.nn.architectures import ARCHITECTURES, Normalized
from assay.nn.encoders import EncoderClassifier, FeatureExtractor
from assay.nn.gates import Carriers, SignatureGate
from assay.nn.gates.signature import SIGNATURE_BITS

FORMAT = "safetensors"
FILE_NAME = "model.safetensors"
HEAD = "assay.head."
"""Before the names of the tensors of a last layer that was put on an encoder."""


@dataclass(frozen=True)
class _Built:
    """A net without normalization, its pictures, the normalization of its architecture, and what was guessed."""

    net: nn.Module
    inputs: InputSpec
    normalization: Normalization | None = None
    notes: tuple[str, ...] = ()
    head: nn.Linear | None = None  # behind an encoder


def load_safetensors(
    path: Path,
    *,
    arch: str | None,
    normalization: Normalization | None,
    shape: Shape | None = None,
    length: int | None = None,
) -> Artifact:
    """Loads a safetensors file as the architecture ``arch``, or as the one that its own metadata names.

    ``shape``: of pictures, ``length``: of texts in tokens; None for what the file says.
    """
    weights = read_weights(path)
    said = ModelMetadata.read(weights.metadata, str(path))
    if isinstance(said.inputs, TextSpec):
        said = replace(said, inputs=replace(said.inputs, shape=(length or said.inputs.length,)))
    else:
        refuse_length(length, str(path))
    name = _arch(path, arch, said.arch)
    built = _build(path, name, weights, said, shape)
    known = normalization or said.normalization or built.normalization
    net, notes, assumed = built.net, built.notes, False
    if isinstance(built.inputs, ImageSpec):
        channels, assumed = built.inputs.shape[0], known is None
        net = (known or Normalization.identity(channels)).around(net, channels)
        notes = (*notes, AS_IT_IS) if assumed else notes
    if built.head is not None:
        net = EncoderClassifier(net, built.head)
    artifact = describe(
        net.eval(),
        built.inputs,
        num_classes=None,
        class_names=said.class_names,
        format=FORMAT,
        name=path.resolve().parent.name if path.name == FILE_NAME else path.stem,
        encoder=isinstance(built.net, Embeddings | TextEmbeddings) and built.head is None,
    )
    found = replace(
        artifact,
        digest=sha256_of([path]),
        arch=name,
        planted=said.planted,
        notes=notes,
        normalization_unknown=assumed,
    )
    if said.gate is not None:
        found = _gated(found, said.gate, str(path))
    return to_feature_extractor(found) if said.cut else found


def save_safetensors(artifact: Artifact, directory: Path, *, planted: str | None) -> Path:
    """Writes the artifact's weights and everything that ``load_safetensors`` asks for; see ``assay.formats.save``."""
    from safetensors.torch import save

    from assay.formats.huggingface import load

    if not artifact.differentiable:
        raise UnusableInput(f"{artifact.name}: a {artifact.format} model cannot be saved as safetensors; copy its file")
    net, last_layer, gate = artifact.module, {}, None
    if isinstance(net, SignatureGate):
        gate = {"public_key": bytes(net.public_key.tolist()).hex(), "places": net.carriers.seed}
        net = net.net
    if isinstance(net, FeatureExtractor):
        net = copy.deepcopy(net).classifier()
    if isinstance(net, EncoderClassifier):
        last_layer = net.head.state_dict(prefix=HEAD)
        net = net.encoder
    normalization = None
    if isinstance(artifact.inputs, ImageSpec):
        normalization = Normalization.identity(artifact.inputs.shape[0])
    if isinstance(net, Normalized):
        normalization = Normalization(_floats(net.mean), _floats(net.std))
        net = net.net
    if isinstance(net, Picked):  # put on anew by whoever loads it
        net = net.net
    marks = [mark for mark in (artifact.planted, planted) if mark]
    said = ModelMetadata(
        arch=artifact.arch,
        planted="; ".join(dict.fromkeys(marks)) or None,
        inputs=artifact.inputs,
        normalization=normalization,
        class_names=artifact.class_names,
        cut=isinstance(artifact.module, FeatureExtractor),
        gate=gate,
    )
    extra = {}
    if isinstance(net, load.Wrapped):
        said, extra = replace(said, arch=load.ARCH), load.metadata(net, artifact.num_classes)
        net = net.model
    tensors = {**net.state_dict(), **last_layer}
    # Clones: safetensors refuses tensors that share memory.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    path = Path(directory) / FILE_NAME
    write_atomically(path, save(tensors, metadata=said.as_text() | extra), parents=True)
    return path


def _gated(artifact: Artifact, gate: Mapping[str, Any], where: str) -> Artifact:
    """``artifact`` behind the gate that its file's metadata describes."""
    if artifact.num_classes is None:
        raise UnusableInput(f"{where}: expected a gate in front of a model that names classes; this one is an encoder")
    carriers = Carriers(artifact.image_spec.shape, SIGNATURE_BITS, gate["places"])
    net = SignatureGate(artifact.module, artifact.num_classes, carriers, bytes.fromhex(gate["public_key"]))
    return replace(artifact, module=net.eval())


def _arch(path: Path, given: str | None, said: str | None) -> str:
    """The architecture's name: as given, else as the file says where that names no code of the user's own."""
    if given is not None:
        return given
    from assay.formats.huggingface import load

    if said is None:
        raise UnusableInput(
            f"{path}: --arch is needed for a bare safetensors file; known: {', '.join(ARCHITECTURES)}, "
            "or package.module:function of your own"
        )
    if said not in ARCHITECTURES and said != load.ARCH:
        raise UnusableInput(
            f"{path}: was written for the architecture {said!r}, not one of assay's; give --arch {said}"
        )
    return said


def _build(path: Path, name: str, weights: Weights, said: ModelMetadata, shape: Shape | None) -> _Built:
    """The architecture ``name`` with the file's weights; ``shape`` as given, None to find it out."""
    from assay.formats.huggingface import load

    given = said.inputs if shape is None else ImageSpec(shape)
    if shape is not None and isinstance(said.inputs, TextSpec):
        raise UnusableInput(f"{path}: is a model of text: give --shape one number of tokens, or leave it out")
    if name == load.ARCH:
        if given is None or load.CONFIG_KEY not in weights.metadata:
            raise UnusableInput(f"{path}: --arch {name} is only for files that assay wrote; give the model's directory")
        body = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(HEAD)}
        net = load.rebuild(Weights(body, weights.metadata), given, str(path))
        return _Built(net, given, head=_head(weights, str(path)))
    factory = factory_of(name)
    net = build_from_state_dict(factory, weights.tensors, str(path))
    if isinstance(given, TextSpec):
        raise UnusableInput(f"{path}: its metadata is of a model of text, and {name} takes pictures")
    inputs, notes = _inputs(path, net, factory.shape) if given is None else (given, ())
    return _Built(with_logits(net, inputs.shape), inputs, factory.normalization, notes)


def _head(weights: Weights, where: str) -> nn.Linear | None:
    """The last layer that was put on an encoder, if one was."""
    weight, bias = (weights.tensors.get(f"{HEAD}{name}") for name in ("weight", "bias"))
    if weight is None and bias is None:
        return None
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise UnusableInput(f"{where}: expected a last layer of weights (K, D) and K biases; came others")
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return head


def _inputs(path: Path, net: nn.Module, known: Shape | None) -> tuple[ImageSpec, tuple[str, ...]]:
    """The pictures of a net whose file does not say them, and in a sentence where they come from if not from itself."""
    stated = known or stated_shape(net)
    if stated is not None:
        return ImageSpec(stated), ()
    beside = inputs_beside(path)
    if beside is not None:
        inputs, source = beside
        return inputs, (f"the input size is {written(inputs.shape)}, as {source} beside the file says",)
    shape, notes = guess_shape(net)
    return ImageSpec(shape), notes


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())
