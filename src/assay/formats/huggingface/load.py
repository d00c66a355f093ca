"""Classifiers and encoders in Hugging Face's layout: a directory, a hub id, a file that assay made of one.

Only JSON and safetensors files are read, by code in this package, and tokenizers by the library of that name.
transformers gets a parsed config and tensors (``hf_model``).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import PLANTED_KEY, Artifact, InputSpec, TextSpec
from assay.formats.describe import describe
from assay.formats.huggingface.build import build, is_encoder, refuse_code, supported, takes_text
from assay.formats.huggingface.pooling import Embeddings, Pooling, as_pooling, pooling_of
from assay.formats.huggingface.preprocessing import Preprocessing, read_preprocessing
from assay.formats.huggingface.text import POOLING, TOKENIZER, TextEmbeddings, TextLogits, text_pooling, text_spec
from assay.formats.normalization import Normalization
from assay.formats.safetensors_check import Weights, read_weights
from assay.formats.shape import Shape, refuse_length, written
from assay.io.files import PICKLES, TO_CONVERT, inside, read_json, sha256_of

FORMAT = "huggingface"
ARCH = "huggingface"
"""``assay.arch`` of a safetensors file that assay wrote from a Hugging Face model; its config stands beside it."""
CONFIG_KEY = "assay.config"
FLIP_KEY = "assay.flip_channels"
POOLING_KEY = "assay.pooling"

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Logits(nn.Module):
    """A transformers model as a net: normalized pictures (N, C, H, W) -> logits (N, K)."""

    def __init__(self, model: nn.Module, *, flip: bool = False) -> None:
        super().__init__()
        self.model = model
        self.flip = flip  # the model takes BGR

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x.flip(1) if self.flip else x).logits


Wrapped = Logits | Embeddings | TextLogits | TextEmbeddings
"""The nets around a transformers model."""


def config_json(model: nn.Module, labels: int | None = None) -> str:
    """A transformers model's config as JSON; ``labels``: how many classes it has by now, None: as it came."""
    config: Any = copy.deepcopy(model.config)
    if labels not in (None, config.num_labels):
        config.num_labels = labels
    config.architectures = [type(model).__name__]
    return config.to_json_string(use_diff=True)


def load_directory(
    path: Path,
    *,
    normalization: Normalization | None,
    shape: Shape | None = None,
    length: int | None = None,
    pooling: Pooling | None = None,
    name: str | None = None,
) -> Artifact:
    """Loads a directory with ``config.json``, safetensors weights and ``preprocessor_config.json``, or a tokenizer.

    ``shape``: of pictures, ``length``: of texts in tokens; None for what the directory says.
    """
    config_path = inside(path, CONFIG)
    settings = read_json(config_path)
    refuse_code(settings, str(config_path))
    files = _weight_files(path)
    parts = [read_weights(file) for file in files]
    tensors = {key: tensor for part in parts for key, tensor in part.tensors.items()}
    model = build(settings, tensors, str(path))
    called = name or path.resolve().name
    read = [config_path, *files]
    if takes_text(model):
        _is_text(shape, normalization, str(path))
        artifact = _describe_text(model, path, settings, length, pooling, name=called)
        read += [inside(path, name) for name in (TOKENIZER, POOLING) if (path / name).exists()]
    else:
        refuse_length(length, str(path))
        processor = read_json(inside(path, PREPROCESSOR)) if (path / PREPROCESSOR).exists() else None
        if processor is not None:
            refuse_code(processor, str(path / PREPROCESSOR))
        preprocessing = read_preprocessing(processor, settings, normalization, str(path), shape=shape)
        if is_encoder(settings):
            artifact = _describe_encoder(model, preprocessing, pooling, str(path), name=called)
        else:
            artifact = _describe(model, preprocessing, class_names=None, name=called)
    if pooling is not None and artifact.num_classes is not None:
        raise UnusableInput(
            f"{path}: --pooling is for encoders, this names {artifact.num_classes} classes: leave it out"
        )
    artifact.module.eval()
    marks = [part.metadata[PLANTED_KEY] for part in parts if PLANTED_KEY in part.metadata]
    return replace(artifact, digest=sha256_of(read), planted="; ".join(dict.fromkeys(marks)) or None)


def load_hub(
    repository: str,
    *,
    normalization: Normalization | None,
    shape: Shape | None = None,
    length: int | None = None,
    pooling: Pooling | None = None,
) -> Artifact:
    """Fetches the JSON and safetensors files of a hub repository, nothing else of it, and loads them."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"])
    except Exception as error:  # the hub client raises a dozen kinds, its HTTP library's own among them
        raise UnusableInput(
            f"cannot fetch {repository} from the Hugging Face hub: {first_line(error)}; "
            "check the name and the network, or give a local path"
        ) from None
    return load_directory(
        Path(folder), normalization=normalization, shape=shape, length=length, pooling=pooling, name=repository
    )


def from_model(
    model: nn.Module,
    *,
    shape: Shape | None,
    normalization: Normalization | None,
    class_names: Sequence[str] | None,
    name: str,
) -> Artifact:
    """The artifact around a transformers image classification model in memory; see ``module.from_module``."""
    settings = json.loads(config_json(model))
    supported(settings, name)
    if takes_text(model):
        raise UnusableInput(f"{name}: a model of text is not taken from memory: give its saved folder")
    if is_encoder(settings):
        raise UnusableInput(f"{name}: an encoder of transformers is not taken from memory: give its saved folder")
    processor = _processor_of(str(settings.get("_name_or_path") or getattr(model, "name_or_path", "")))
    preprocessing = read_preprocessing(processor, settings, normalization, name, shape=shape)
    return replace(_describe(model, preprocessing, class_names=class_names, name=name), format="module")


def rebuild(weights: Weights, inputs: InputSpec, where: str) -> nn.Module:
    """The net in a file that assay wrote from a Hugging Face model, which takes ``inputs``."""
    try:
        settings = json.loads(weights.metadata[CONFIG_KEY])
    except ValueError:
        raise UnusableInput(f"{where}: metadata {CONFIG_KEY} is not valid JSON") from None
    refuse_code(settings, where)
    flip, pooling = weights.metadata.get(FLIP_KEY) == "1", as_pooling(weights.metadata.get(POOLING_KEY))
    if not isinstance(settings, dict):
        raise UnusableInput(f"{where}: expected metadata {CONFIG_KEY} as a JSON object")
    if is_encoder(settings) != (pooling is not None):
        raise UnusableInput(f"{where}: expected metadata {POOLING_KEY} for an encoder, and for nothing else")
    model = build(settings, weights.tensors, where)
    if takes_text(model) != isinstance(inputs, TextSpec):
        raise UnusableInput(f"{where}: its config and the inputs in its metadata do not belong together")
    if isinstance(inputs, TextSpec):
        return TextLogits(model, inputs.pad) if pooling is None else TextEmbeddings(model, inputs.pad, pooling)
    return Logits(model, flip=flip) if pooling is None else Embeddings(model, pooling, flip=flip)


def metadata(net: Wrapped, labels: int | None) -> dict[str, str]:
    """What ``rebuild`` needs beside the weights; ``labels``: how many classes the net names, None for an encoder."""
    said = {CONFIG_KEY: config_json(net.model, labels)}
    if isinstance(net, Logits | Embeddings):
        said[FLIP_KEY] = str(int(net.flip))
    return {**said, POOLING_KEY: net.pooling} if isinstance(net, Embeddings | TextEmbeddings) else said


def _weight_files(path: Path) -> list[Path]:
    """The safetensors files of a directory, all of them inside it."""
    if (path / INDEX).exists():
        mapping = read_json(inside(path, INDEX)).get("weight_map")
        if not isinstance(mapping, dict) or not mapping or not all(isinstance(v, str) for v in mapping.values()):
            raise UnusableInput(f"{path / INDEX}: expected a weight_map of tensor names to files")
        names = sorted(set(mapping.values()))
        wrong = [name for name in names if not name.endswith(".safetensors")]
        if wrong:
            raise UnusableInput(f"{path / INDEX}: expected .safetensors shards, came {wrong[0]!r}")
        return [inside(path, name) for name in names]
    if (path / WEIGHTS).exists() or (path / WEIGHTS).is_symlink():
        return [inside(path, WEIGHTS)]
    pickles = sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES)
    if pickles:
        raise UnusableInput(
            f"{path}: has only {pickles[0]}, which can run code when loaded and is never opened; "
            f"{TO_CONVERT.replace('FILE', pickles[0])}, or save_pretrained(..., safe_serialization=True)"
        )
    raise UnusableInput(f"{path}: expected {WEIGHTS} or {INDEX}, found neither")


def _is_text(shape: Shape | None, normalization: Normalization | None, where: str) -> None:
    if shape is not None or normalization is not None:
        raise UnusableInput(
            f"{where}: is a model of text, which has no picture size, mean or std: give --shape one number of tokens"
        )


def _describe_text(
    model: nn.Module, path: Path, settings: dict[str, Any], length: int | None, pooling: Pooling | None, *, name: str
) -> Artifact:
    inputs = text_spec(path, settings, length)
    if is_encoder(settings):
        net: nn.Module = TextEmbeddings(model, inputs.pad, text_pooling(path, pooling))
        return describe(net, inputs, num_classes=None, class_names=None, format=FORMAT, name=name, encoder=True)
    names = _class_names(model)
    net = TextLogits(model, inputs.pad)
    return describe(net, inputs, num_classes=None, class_names=names, format=FORMAT, name=name)


def _describe_encoder(
    model: nn.Module, preprocessing: Preprocessing, said: Pooling | None, where: str, *, name: str
) -> Artifact:
    inputs = preprocessing.inputs
    pooling = pooling_of(model, inputs.shape, said, where)
    net = preprocessing.normalization.around(Embeddings(model, pooling, flip=preprocessing.flip), inputs.shape[0])
    found = describe(net, inputs, num_classes=None, class_names=None, format=FORMAT, name=name, encoder=True)
    return replace(found, notes=_guessed(preprocessing))


def _describe(
    model: nn.Module, preprocessing: Preprocessing, *, class_names: Sequence[str] | None, name: str
) -> Artifact:
    inputs = preprocessing.inputs
    net = preprocessing.normalization.around(Logits(model, flip=preprocessing.flip), inputs.shape[0])
    names = class_names or _class_names(model)
    artifact = describe(net, inputs, num_classes=None, class_names=names, format=FORMAT, name=name)
    return replace(artifact, notes=_guessed(preprocessing))


def _class_names(model: nn.Module) -> list[str]:
    labels: Mapping[int, str] = model.config.id2label or {}  # type: ignore[union-attr,assignment]
    return [str(labels[index]) for index in sorted(labels)]


def _guessed(preprocessing: Preprocessing) -> tuple[str, ...]:
    """What was guessed, in a sentence."""
    if not preprocessing.guessed:
        return ()
    size = written(preprocessing.inputs.shape)
    return (f"the input size is a guess, as nothing says it: {size}; give --shape C,H,W",)


def _processor_of(name_or_path: str) -> Mapping[str, Any] | None:
    """The image processor's file of a model in memory, where it lies on this machine already."""
    if not name_or_path:
        return None
    path = Path(name_or_path) / PREPROCESSOR
    if not path.is_file():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(name_or_path, PREPROCESSOR)
        except HFValidationError:  # a path, not a repository
            cached = None
        if not isinstance(cached, str):
            return None
        path = Path(cached)
    return read_json(path)
