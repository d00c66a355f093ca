"""Classifiers and encoders of transformers: a directory, a hub id, a model in memory.

This package reads JSON and safetensors files only; the library ``tokenizers`` reads tokenizers. transformers gets a
parsed config and tensors (``build``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import PLANTED_KEY, Artifact, InputSpec
from assay.formats.class_names import read_class_names
from assay.formats.describe import describe
from assay.formats.file_digests import with_digests
from assay.formats.huggingface.build import build, is_encoder, refuse_code, refuse_other_tasks, takes_text
from assay.formats.huggingface.pooling import choose_pooling
from assay.formats.huggingface.preprocessing import Preprocessing, read_preprocessing
from assay.formats.huggingface.text import POOLING, TOKENIZER, read_text_pooling, read_text_spec
from assay.formats.huggingface.towers import select_tower
from assay.formats.huggingface.wrappers import Embeddings, Logits, TextEmbeddings, TextLogits, config_json
from assay.formats.normalization import Normalization
from assay.formats.options import LoadOptions, refuse_output
from assay.formats.processor_file import PREPROCESSOR, PROCESSOR, ProcessorSettings, choose_settings
from assay.formats.safetensors_check import read_weights
from assay.formats.shape import Shape, format_shape, refuse_length
from assay.io.files import PICKLES, TO_CONVERT, inside, read_json
from assay.io.hub_ids import hub_id
from assay.kinds import Seen
from assay.kinds.config import kind_of_config
from assay.kinds.table import KINDS
from assay.sandbox.network import network_allowed
from assay.sandbox.phases import reading

FORMAT = "huggingface"
CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class FolderWeights:
    """The weights of a directory."""

    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]
    planted: str | None  # marks of all files


@dataclass(frozen=True)
class _Wrapped:
    """A transformers model in assay's convention."""

    module: nn.Module
    inputs: InputSpec
    encoder: bool
    notes: tuple[str, ...] = ()  # guesses
    files: tuple[Path, ...] = ()  # further files that decide on the embeddings
    processor: str = ""  # file with the settings of the image processor

    def describe(self, class_names: Sequence[str], *, format: str, name: str) -> Artifact:
        """Return the artifact of this model."""
        names = None if self.encoder else class_names
        found = describe(
            self.module.eval(), self.inputs, format=format, name=name, class_names=names, encoder=self.encoder
        )
        source = f"from {self.processor}" if self.processor else ""
        return replace(found, notes=(*found.notes, *self.notes), normalization_from=source)


def load_directory(path: Path, options: LoadOptions, *, name: str | None = None) -> Artifact:
    """Load a directory with ``config.json``, safetensors weights and ``preprocessor_config.json`` or a tokenizer.

    Args:
        path: The directory.
        options: Options of the user. The directory's own come second.
        name: Name of the model. None: the name of the directory.

    Raises:
        UnusableInput: A file is missing, malformed or hostile, or an option does not fit.
    """
    refuse_output(options.output, str(path))
    config = read_config(path)
    weights = read_folder_weights(path)
    return load_parts(path, config, weights, options, name=name)


def load_parts(
    path: Path, config: dict[str, Any], weights: FolderWeights, options: LoadOptions, *, name: str | None = None
) -> Artifact:
    """Load a model from its config and weights.

    Args:
        path: The directory with the preprocessor's or the tokenizer's files.
        config: Content of ``config.json``.
        weights: The weights.
        options: Options of the user.
        name: Name of the model. None: the name of the directory.

    Raises:
        UnusableInput: The parts do not fit each other or the options.
    """
    config, tensors, more = select_tower(config, weights.tensors, str(path))
    model = build(config, tensors, str(path))
    wrap = _wrap_text if takes_text(model) else _wrap_image
    wrapped = wrap(model, path, config, options)
    names = _class_names(config, model, str(path / CONFIG))
    artifact = wrapped.describe(names, format=FORMAT, name=name or path.resolve().name)
    if options.pooling is not None and artifact.num_classes is not None:
        raise UnusableInput(
            f"{path}: expected pooling for encoders only, got a model of {artifact.num_classes} classes. "
            "Fix: leave it out."
        )
    files = [inside(path, CONFIG), *weights.files, *wrapped.files]
    notes = (*more, *artifact.notes)
    return with_digests(replace(artifact, planted=weights.planted, notes=notes), path, files)


def load_hub(repository: str, options: LoadOptions, *, features: bool = False) -> Artifact:
    """Fetch the JSON and safetensors files of a hub repository, no others, and load them.

    Its config comes first, so that a model without a reader costs no download of weights.

    Args:
        repository: ``owner/name``.
        options: Options of the user.
        features: The user cuts the model before its last layer.
    """
    folder = _fetch(repository, features=features)
    with reading(f"reading {repository}", folder):
        return load_directory(folder, options, name=repository)


def fetch_directory(model: str) -> Path:
    """Return the directory of a transformers model on this machine; a hub id is fetched.

    Args:
        model: Path or hub id.
    """
    repository = hub_id(model, local_suffixes=())
    if repository is not None:
        return _fetch(repository, features=False)
    if not (Path(model) / CONFIG).exists():
        raise UnusableInput(f"{model}: expected the folder of a transformers model with {CONFIG}, got none there")
    return Path(model)


def _fetch(repository: str, *, features: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with network_allowed(f"downloading {repository}"):
            _refuse_kind(Path(snapshot_download(repository, allow_patterns=[CONFIG])), repository, features=features)
            folder = snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"])
    except UnusableInput:
        raise
    except Exception as error:  # the hub client raises a dozen kinds, and those of its HTTP library
        raise UnusableInput(
            f"cannot fetch {repository} from the Hugging Face hub: {first_line(error)}. "
            "Fix: check the name and the network, or give a local path."
        ) from None
    return Path(folder)


def _refuse_kind(folder: Path, repository: str, *, features: bool) -> None:
    """Raise UnusableInput if the config of a repository is of a kind without a reader."""
    if (folder / CONFIG).exists():
        key, detail = kind_of_config(read_json(inside(folder, CONFIG)))
        Seen(Path(repository), KINDS[key], detail).refuse(features=features)


def from_model(
    model: nn.Module,
    *,
    shape: Shape | None,
    normalization: Normalization | None,
    class_names: Sequence[str] | None,
    name: str,
) -> Artifact:
    """Return the artifact around a transformers image classifier in memory; see ``torch_module.from_module``."""
    config = json.loads(config_json(model))
    refuse_other_tasks(config, name)
    if takes_text(model) or is_encoder(config):
        kind = "a text model" if takes_text(model) else "an encoder"
        raise UnusableInput(
            f"{name}: expected an image classifier of transformers in memory, got {kind}. Fix: give its saved folder."
        )
    processor = _find_processor(str(config.get("_name_or_path") or getattr(model, "name_or_path", "")))
    found = read_preprocessing(processor.settings, config, normalization, name, shape=shape)
    module = found.normalization.around(Logits(model, flip=found.flip), found.inputs.shape[0])
    wrapped = _Wrapped(module, found.inputs, False, (*_notes(found), *processor.notes))
    return wrapped.describe(class_names or _class_names(config, model, name), format="module", name=name)


def read_config(path: Path) -> dict[str, Any]:
    """Return the config of a directory; raise UnusableInput if it is malformed or asks for code."""
    file = inside(path, CONFIG)
    config = read_json(file)
    refuse_code(config, str(file))
    return config


def read_folder_weights(path: Path) -> FolderWeights:
    """Return the weights of a directory; raise UnusableInput if they are missing, malformed or ambiguous."""
    files = _weight_files(path)
    parts = [read_weights(file) for file in files]
    tensors: dict[str, Tensor] = {}
    for part in parts:
        if twice := sorted(tensors.keys() & part.tensors.keys()):
            raise UnusableInput(f"{path}: expected each tensor in one file, got {twice[0]} in two. Fix: save it again.")
        tensors |= part.tensors
    marks = [part.metadata[PLANTED_KEY] for part in parts if PLANTED_KEY in part.metadata]
    return FolderWeights(tensors, tuple(files), "; ".join(dict.fromkeys(marks)) or None)


def _weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of a directory, all of them inside it."""
    if (path / INDEX).exists() and (path / WEIGHTS).exists():  # transformers would read the single file
        raise UnusableInput(
            f"{path}: expected one set of weights, got {WEIGHTS} and {INDEX}. Fix: remove the one that is not in use."
        )
    if (path / INDEX).exists():
        mapping = read_json(inside(path, INDEX)).get("weight_map")
        if not isinstance(mapping, dict) or not mapping or not all(isinstance(v, str) for v in mapping.values()):
            raise UnusableInput(f"{path / INDEX}: expected a weight_map of tensor names to files")
        names = sorted(set(mapping.values()))
        wrong = [name for name in names if not name.endswith(".safetensors")]
        if wrong:
            raise UnusableInput(f"{path / INDEX}: expected .safetensors shards, got {wrong[0]!r}")
        return [inside(path, name) for name in names]
    if (path / WEIGHTS).exists() or (path / WEIGHTS).is_symlink():
        return [inside(path, WEIGHTS)]
    pickles = sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES)
    if pickles:
        raise UnusableInput(
            f"{path}: has only {pickles[0]}, which can run code when loaded and is never opened. "
            f"Fix: {TO_CONVERT.replace('FILE', pickles[0])}, or save_pretrained(..., safe_serialization=True)."
        )
    raise UnusableInput(f"{path}: expected {WEIGHTS} or {INDEX}, found neither")


def _wrap_text(model: nn.Module, path: Path, config: dict[str, Any], options: LoadOptions) -> _Wrapped:
    if options.shape is not None or options.normalization is not None:
        raise UnusableInput(
            f"{path}: is a text model, which has no image size, mean or std. Fix: give one number of tokens as shape."
        )
    inputs, encoder = read_text_spec(path, config, options.length), is_encoder(config)
    files = tuple(inside(path, name) for name in (TOKENIZER, POOLING) if (path / name).exists())
    module: nn.Module
    if encoder:
        module = TextEmbeddings(model, inputs.pad, read_text_pooling(path, options.pooling))
    else:
        module = TextLogits(model, inputs.pad)
    return _Wrapped(module, inputs, encoder, files=files)


def _wrap_image(model: nn.Module, path: Path, config: dict[str, Any], options: LoadOptions) -> _Wrapped:
    refuse_length(options.length, str(path))
    files = {name: read_json(inside(path, name)) for name in (PROCESSOR, PREPROCESSOR) if (path / name).exists()}
    processor = choose_settings(files)
    refuse_code(processor.settings, str(path / processor.source))
    found = read_preprocessing(processor.settings, config, options.normalization, str(path), shape=options.shape)
    shape, encoder = found.inputs.shape, is_encoder(config)
    module: nn.Module
    if encoder:
        module = Embeddings(model, choose_pooling(model, shape, options.pooling, str(path)), flip=found.flip)
    else:
        module = Logits(model, flip=found.flip)
    module = found.normalization.around(module, shape[0])
    source = processor.source if processor.settings is not None else ""
    return _Wrapped(module, found.inputs, encoder, (*_notes(found), *processor.notes), processor=source)


def _class_names(config: Mapping[str, Any], model: nn.Module, where: str) -> Sequence[str]:
    """Return the class names of the config, else the defaults of transformers."""
    labels: Mapping[int, str] = model.config.id2label or {}  # type: ignore[union-attr,assignment]
    return read_class_names(config, where) or [str(labels[index]) for index in sorted(labels)]


def _notes(found: Preprocessing) -> tuple[str, ...]:
    """Return the notes on the preprocessing of images."""
    if not found.guessed:
        return found.notes
    shape = format_shape(found.inputs.shape)
    guess = f"the input size is a guess, because no file states it: {shape}. Fix: give the shape."
    return (guess, *found.notes)


def _find_processor(name_or_path: str) -> ProcessorSettings:
    """Return the settings of the image processor of a model in memory, as far as its files are on this machine."""
    found = {name: _find_file(name_or_path, name) for name in (PROCESSOR, PREPROCESSOR)} if name_or_path else {}
    return choose_settings({name: read_json(path) for name, path in found.items() if path is not None})


def _find_file(name_or_path: str, name: str) -> Path | None:
    """Return a file of a model in a folder or in the hub's cache, None if it is not on this machine."""
    path = Path(name_or_path) / name
    if path.is_file():
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name_or_path, name)
    except HFValidationError:  # a path, no repository
        return None
    return Path(cached) if isinstance(cached, str) else None
