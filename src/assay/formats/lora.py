"""LoRA adapters of PEFT: merged in memory with their base model (Hu et al., LoRA, 2021, arXiv 2106.09685).

A merged weight is ``W + s B A``, with the factors A and B of the adapter and ``s = lora_alpha / r``. Only plain LoRA on
linear and convolution layers is merged. Any other setting is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.formats.huggingface.load import FolderWeights, fetch_directory, load_parts, read_config, read_folder_weights
from assay.formats.options import LoadOptions
from assay.formats.safetensors_check import read_weights
from assay.io.files import inside, read_json, sha256_of
from assay.kinds import Seen
from assay.kinds.config import kind_of_config
from assay.kinds.table import KINDS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIXES = ("base_model.model.", "base_model.")  # of PEFT, in front of the base model's names
FACTORS = ("lora_A", "lora_B")
# Settings that change no merged weight, or whose effect this module applies.
KNOWN_SETTINGS = {
    "peft_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules", "task_type", "lora_dropout",
    "inference_mode", "revision", "peft_version", "auto_mapping", "modules_to_save", "use_rslora", "bias",
    "init_lora_weights", "fan_in_fan_out", "megatron_core", "runtime_config", "ensure_weight_tying",
}  # fmt: skip
ALL_LAYERS = "all-linear"
PLAIN_INITS = (None, True, False, "gaussian")  # others change the base model's weights


@dataclass(frozen=True)
class _Settings:
    """The used settings of an adapter."""

    rank: int
    scale: float
    targets: tuple[str, ...]  # names, or ends of names, of the layers with factors; empty: all
    saved: tuple[str, ...]  # the same of layers that the adapter replaces


def load_adapter(path: Path, base: str, options: LoadOptions, *, features: bool = False) -> Artifact:
    """Load a LoRA adapter, merged with its base model.

    Args:
        path: Folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: Folder or hub id of the base model, a model of transformers.
        options: Options of the user. The base model's own come second.
        features: The user cuts the model before its last layer.

    Raises:
        UnusableInput: The adapter is no plain LoRA, or does not fit the base model.
    """
    options.refuse_arch(str(path))
    settings = _read_settings(path)
    adapter = inside(path, WEIGHTS)
    folder = fetch_directory(base)
    config = read_config(folder)
    key, detail = kind_of_config(config)
    Seen(Path(base), KINDS[key], detail).refuse(features=features)
    weights = read_folder_weights(folder)
    tensors = merge(dict(weights.tensors), read_weights(adapter).tensors, settings, str(path))
    merged = FolderWeights(tensors, (*weights.files, inside(path, CONFIG), adapter), weights.planted)
    artifact = load_parts(folder, _with_classes(config, tensors), merged, options, name=path.resolve().name)
    stated = str(read_json(inside(path, CONFIG)).get("base_model_name_or_path"))[:80]
    note = (
        f"the adapter was merged in memory with the base model {base} (weights sha256 "
        f"{sha256_of(weights.files)[:12]}...); the adapter's config names {stated!r} as its base"
    )
    return replace(artifact, notes=(note, *artifact.notes))


def _read_settings(path: Path) -> _Settings:
    """Return rank and scale of an adapter; raise UnusableInput for any setting beyond plain LoRA."""
    config = read_json(inside(path, CONFIG))
    unknown = sorted(key for key, value in config.items() if key not in KNOWN_SETTINGS and value)
    for key, plain in (("bias", (None, "none")), ("fan_in_fan_out", (None, False)), ("init_lora_weights", PLAIN_INITS)):
        if not any(config.get(key) is value for value in plain) and config.get(key) not in plain:
            unknown.append(key)
    if unknown:
        raise UnusableInput(
            f"{path}: expected a plain LoRA adapter, got the setting {unknown[0]} = {str(config[unknown[0]])[:40]}. "
            "Fix: merge it yourself (merge_and_unload of peft), and give the merged folder."
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 0 < rank <= 65536 or isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise UnusableInput(f"{path}: expected a rank r and a number lora_alpha in {CONFIG}, got {rank} and {alpha}")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    targets = () if config.get("target_modules") == ALL_LAYERS else _names(config, "target_modules", path)
    return _Settings(rank, scale, targets, _names(config, "modules_to_save", path))


def _names(config: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    found = config.get(key) or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UnusableInput(
            f"{path}: expected a list of names as {key}, got {str(found)[:40]!r}. Fix: merge it yourself "
            "(merge_and_unload of peft), and give the merged folder."
        )
    return tuple(found)


def _matches(layer: str, names: tuple[str, ...]) -> bool:
    """Return whether a layer's name is one of the names, or ends with one, as PEFT compares them."""
    return any(layer == name or layer.endswith(f".{name}") for name in names)


def merge(base: dict[str, Tensor], adapter: Mapping[str, Tensor], settings: _Settings, where: str) -> dict[str, Tensor]:
    """Return the base model's tensors with an adapter's merged into them.

    Args:
        base: Tensors of the base model by name.
        adapter: Tensors of the adapter by name.
        settings: Rank and scale.
        where: Name of the adapter in error messages.

    Raises:
        UnusableInput: A tensor of the adapter has no place in the base model, or another shape.
    """
    factors, saved = _sort_tensors(adapter, where)
    outside = [layer for layer in factors if settings.targets and not _matches(layer, settings.targets)]
    outside += [name for name in saved if not _matches(name.rpartition(".")[0], settings.saved)]
    if outside:  # PEFT ignores them
        raise UnusableInput(
            f"{where}: expected tensors of target_modules and modules_to_save only, got {outside[0]}. Fix: save the "
            "adapter again."
        )
    base = _with_prefix(base, factors)
    merged = dict(base)
    for name, pair in factors.items():
        weight = base.get(f"{name}.weight")
        if weight is None or len(pair) != 2:
            found = "no such layer" if weight is None else f"only {', '.join(pair)}"
            raise UnusableInput(
                f"{where}: expected the layer {name} with both factors, got {found}. Fix: give the adapter's own base."
            )
        merged[f"{name}.weight"] = weight.float() + settings.scale * _product(pair, weight, settings.rank, where, name)
    return merged | saved


def _sort_tensors(adapter: Mapping[str, Tensor], where: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Return the factors by layer, and the whole tensors (modules_to_save) by name."""
    factors: dict[str, dict[str, Tensor]] = {}
    saved: dict[str, Tensor] = {}
    for full, tensor in adapter.items():
        name = next((full.removeprefix(prefix) for prefix in PREFIXES if full.startswith(prefix)), full)
        stem, _, last = name.rpartition(".")
        layer, _, kind = stem.rpartition(".")
        if last == "weight" and kind in FACTORS and layer:
            factors.setdefault(layer, {})[kind] = tensor
        elif "lora_" in name:
            raise UnusableInput(
                f"{where}: expected factors lora_A and lora_B of linear or convolution layers, got {full}"
            )
        else:
            saved[name.replace(".modules_to_save.default", "").replace(".modules_to_save", "")] = tensor
    if not factors:
        raise UnusableInput(f"{where}: expected factors lora_A and lora_B in {WEIGHTS}, got none")
    return factors, saved


def _with_prefix(base: dict[str, Tensor], factors: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the base tensors under the adapter's names: a bare encoder lacks the prefix of a model with a head."""
    layer = next(iter(factors))
    prefix, _, rest = layer.partition(".")
    if f"{layer}.weight" in base or f"{rest}.weight" not in base:
        return base
    return {f"{prefix}.{name}": tensor for name, tensor in base.items()}


def _product(pair: Mapping[str, Tensor], weight: Tensor, rank: int, where: str, name: str) -> Tensor:
    """Return B A in the shape of a weight."""
    down, up = (pair[kind].float() for kind in FACTORS)
    pointwise = up.ndim == 2 or (up.ndim == 4 and tuple(up.shape[2:]) == (1, 1))
    fits = down.ndim == up.ndim == weight.ndim and down.ndim in (2, 4) and pointwise
    if not fits or len(down) != rank or up.shape[1] != rank or (len(up), *down.shape[1:]) != tuple(weight.shape):
        raise UnusableInput(
            f"{where}: expected factors of rank {rank} for {name} of {list(weight.shape)}, got {list(down.shape)} and "
            f"{list(up.shape)}. Fix: give the adapter's own base."
        )
    return torch.matmul(up.flatten(1), down.flatten(1)).view(weight.shape)


def _with_classes(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config with the classes of the adapter's own last layer, if the base has other classes."""
    head = tensors.get("classifier.weight")
    names = config.get("id2label")
    known = len(names) if isinstance(names, dict) else config.get("num_labels", 2)
    if head is None or head.ndim != 2 or len(head) == known:
        return config
    classes = {str(number): f"LABEL_{number}" for number in range(len(head))}
    architectures = [
        f"{str(name).removesuffix('Model')}ForImageClassification" if str(name).endswith("Model") else name
        for name in config.get("architectures") or []
    ]
    plain = {key: value for key, value in config.items() if key not in ("label2id", "num_labels")}
    return {**plain, "id2label": classes, "architectures": architectures}
