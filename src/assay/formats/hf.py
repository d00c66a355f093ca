"""Classifiers and encoders in Hugging Face's layout: a directory, a hub id, a file that assay made of one.

Only JSON and safetensors files are read, by code in this package, and tokenizers by the library of that name.
transformers gets a parsed config and tensors, so that nothing in the directory can make it fetch or run something.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay.artifact import PLANTED_KEY, Artifact, Inputs, TextSpec
from assay.errors import UnusableInput, first_line
from assay.formats.checked import Weights, read_weights
from assay.formats.files import PICKLES, TO_CONVERT, inside, read_json, sha256_of
from assay.formats.module import describe
from assay.formats.normalization import Normalization
from assay.formats.pooling import Embeddings, Pooling, as_pooling, pooling_of
from assay.formats.preprocessing import Preprocessing, read_preprocessing
from assay.formats.shape import Shape, refuse_length, written
from assay.formats.text import INPUT, TOKENIZER, TextEmbeddings, TextLogits, text_pooling, text_spec

FORMAT = "huggingface"
ARCH = "huggingface"
"""``assay.arch`` of a safetensors file that assay wrote from a Hugging Face model; its config stands beside it."""
CONFIG_KEY = "assay.config"
FLIP_KEY = "assay.flip_channels"
POOLING_KEY = "assay.pooling"

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


HEADS = ("ForImageClassification", "ForSequenceClassification")
"""What the names of architectures that name classes end in."""


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
    _refuse_code(settings, str(config_path))
    files = _weight_files(path)
    parts = [read_weights(file) for file in files]
    tensors = {key: tensor for part in parts for key, tensor in part.tensors.items()}
    model = _build(settings, tensors, str(path))
    called = name or path.resolve().name
    read = [config_path, *files]
    if takes_text(model):
        _is_text(shape, normalization, str(path))
        artifact = _describe_text(model, path, settings, length, pooling, name=called)
        read.append(inside(path, TOKENIZER))
    else:
        refuse_length(length, str(path))
        processor = read_json(inside(path, PREPROCESSOR)) if (path / PREPROCESSOR).exists() else None
        if processor is not None:
            _refuse_code(processor, str(path / PREPROCESSOR))
        preprocessing = read_preprocessing(processor, settings, normalization, str(path), shape=shape)
        if is_encoder(settings):
            artifact = _describe_encoder(model, preprocessing, pooling, str(path), name=called)
        else:
            artifact = _describe(model, preprocessing, class_names=None, name=called)
    artifact.net.eval()
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
    _supported(settings, name)
    if takes_text(model):
        raise UnusableInput(f"{name}: a model of text is not taken from memory: give its saved folder")
    if is_encoder(settings):
        raise UnusableInput(f"{name}: an encoder of transformers is not taken from memory: give its saved folder")
    processor = _processor_of(str(settings.get("_name_or_path") or getattr(model, "name_or_path", "")))
    preprocessing = read_preprocessing(processor, settings, normalization, name, shape=shape)
    return replace(_describe(model, preprocessing, class_names=class_names, name=name), format="module")


def rebuild(weights: Weights, inputs: Inputs, where: str) -> nn.Module:
    """The net in a file that assay wrote from a Hugging Face model, which takes ``inputs``."""
    try:
        settings = json.loads(weights.metadata[CONFIG_KEY])
    except ValueError:
        raise UnusableInput(f"{where}: metadata {CONFIG_KEY} is not valid JSON") from None
    _refuse_code(settings, where)
    flip, pooling = weights.metadata.get(FLIP_KEY) == "1", as_pooling(weights.metadata.get(POOLING_KEY))
    if not isinstance(settings, dict):
        raise UnusableInput(f"{where}: expected metadata {CONFIG_KEY} as a JSON object")
    if is_encoder(settings) != (pooling is not None):
        raise UnusableInput(f"{where}: expected metadata {POOLING_KEY} for an encoder, and for nothing else")
    model = _build(settings, weights.tensors, where)
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


def takes_text(model: nn.Module) -> bool:
    """Whether a transformers model's main input is tokens."""
    return model.main_input_name == INPUT  # type: ignore[comparison-overlap]


def _refuse_code(settings: object, where: str) -> None:
    """Raises where a setting asks for code or for files from elsewhere; nested settings are searched too."""
    if isinstance(settings, list):
        for value in settings:
            _refuse_code(value, where)
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if key in {"auto_map", "custom_pipelines"}:
            raise UnusableInput(
                f"{where}: asks for code from the model's repository ({key}), which is never run; "
                "load it yourself and give assay the net, or use a model that transformers knows"
            )
        remote = key.endswith("_implementation") and isinstance(value, str) and "/" in value
        if remote or (key in {"use_pretrained_backbone", "use_timm_backbone"} and value):
            raise UnusableInput(f"{where}: asks for something from elsewhere ({key}: {value}); remove that setting")
        if key == "quantization_config" and value:
            raise UnusableInput(f"{where}: expected float weights, came a quantized model ({key}); export it as ONNX")
        _refuse_code(value, where)


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


def is_encoder(settings: Mapping[str, Any]) -> bool:
    """Whether a config is of a bare model, which answers with hidden states."""
    found = settings.get("architectures")
    names = [str(name) for name in found] if isinstance(found, list) else []
    return bool(names) and all(name.endswith("Model") for name in names)


def _supported(settings: Mapping[str, Any], where: str) -> None:
    found = settings.get("architectures")
    names = [str(name) for name in (found if isinstance(found, list) else [] if found is None else [found])]
    if names and not is_encoder(settings) and not any(head in name for head in HEADS for name in names):
        raise UnusableInput(
            f"{where}: only classifiers and encoders of pictures or texts are supported, came {', '.join(names)}; "
            f"give a model ...{' or ...'.join(HEADS)}, or a ...Model without a head"
        )


def _is_text(shape: Shape | None, normalization: Normalization | None, where: str) -> None:
    if shape is not None or normalization is not None:
        raise UnusableInput(
            f"{where}: is a model of text, which has no picture size, mean or std: give --shape one number of tokens"
        )


def _build(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """The transformers model of a config with the given weights, in float32 and eval mode."""
    import torch

    _supported(settings, where)
    try:
        config, model_class = _classes(settings)
        takes, options = model_class.main_input_name, _options(model_class, tensors)
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in model_class(config, **options).parameters())
    except Exception as error:  # configs fail in as many ways as there are models
        raise UnusableInput(f"{where}: no model of transformers fits its config: {first_line(error)}") from None
    if takes not in ("pixel_values", INPUT):
        raise UnusableInput(f"{where}: only models of pictures or text; {model_class.__name__} takes {takes}")
    held = sum(tensor.numel() for tensor in tensors.values())
    if size > 2 * held + 1_000_000:  # checked before any memory is taken for it
        raise UnusableInput(f"{where}: its config describes {size} parameters, its weights are {held}; they do not fit")
    try:
        with _quiet():
            model, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # as above
        said = first_line(error)
        if "ignore_mismatched_sizes" in said:  # which speaks of an option that nobody here has
            said = "tensors of other shapes than it says, of another number of classes for instance"
        raise UnusableInput(f"{where}: its weights do not fit its config: {said}") from None
    missing = sorted(name for name in info["missing_keys"] if not name.endswith("num_batches_tracked"))
    if missing:  # transformers would audit a head of random numbers
        raise UnusableInput(f"{where}: {len(missing)} tensors are missing from its weights: {', '.join(missing[:3])}")
    return model.eval()


def _classes(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """The config object and the model class for a parsed config.json."""
    from transformers import (
        CONFIG_MAPPING,
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
    )

    model_type = str(settings.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"unknown model_type {model_type!r}")
    config = CONFIG_MAPPING[model_type].from_dict(dict(settings))
    text = any(HEADS[1] in str(name) for name in settings.get("architectures") or [])
    headed = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if text else MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    known = MODEL_MAPPING if is_encoder(settings) else headed
    if type(config) not in known:
        raise ValueError(f"it has no {' or '.join(settings.get('architectures') or ['classifier'])} of {model_type}")
    found = known[type(config)]
    candidates: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    wanted = set(settings.get("architectures") or [])
    return config, next((c for c in candidates if c.__name__ in wanted), candidates[0])


def _options(model_class: Any, tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    """Without a pooling layer of its own where there are no weights for it, and it can do without."""
    optional = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": any("pooler." in name for name in tensors)} if optional else {}


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bar and warnings: only the command line prints."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
