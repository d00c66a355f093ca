"""Transformers models built from a config and tensors. Neither can make transformers fetch or run anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.formats.huggingface.bounds import refuse_large_numbers
from assay.formats.huggingface.quiet import quiet
from assay.formats.huggingface.remote_settings import refuse_remote

TEXT_INPUT = "input_ids"  # transformers' name for the main input of a text model
IMAGE_INPUT = "pixel_values"
HEADS = ("ForImageClassification", "ForSequenceClassification")  # endings of the names of classifiers
FREE_PARAMETERS = 1_000_000  # a config may describe twice the parameters of the weights, and this many more
MAX_NAMES = 3  # in an error message


def refuse_code(settings: object, where: str) -> None:
    """Raise UnusableInput if a setting, nested ones included, asks for code or for files from elsewhere.

    Args:
        settings: Content of a JSON file.
        where: Name of the file in error messages.
    """
    if isinstance(settings, list):
        for value in settings:
            refuse_code(value, where)
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if key in {"auto_map", "custom_pipelines"}:
            raise UnusableInput(
                f"{where}: asks for code from the model's repository ({key}), which is never run. Fix: load the model "
                "yourself and pass the module, or use an architecture of transformers."
            )
        refuse_remote(key, value, where)
        if key == "quantization_config" and value:
            raise UnusableInput(
                f"{where}: expected float weights, got a quantized model ({key}). Fix: export it as ONNX."
            )
        refuse_code(value, where)


def takes_text(model: nn.Module) -> bool:
    """Return whether the main input of a transformers model is tokens."""
    return model.main_input_name == TEXT_INPUT  # type: ignore[comparison-overlap]


def is_encoder(settings: Mapping[str, Any]) -> bool:
    """Return whether a config describes a bare model, with hidden states as its output."""
    found = settings.get("architectures")
    names = [str(name) for name in found] if isinstance(found, list) else []
    return bool(names) and all(name.endswith("Model") for name in names)


def refuse_other_tasks(settings: Mapping[str, Any], where: str) -> None:
    """Raise UnusableInput if a config describes neither a classifier nor an encoder.

    Args:
        settings: The config.
        where: Name of the model in error messages.
    """
    found = settings.get("architectures")
    names = [str(name) for name in (found if isinstance(found, list) else [] if found is None else [found])]
    if names and not is_encoder(settings) and not any(head in name for head in HEADS for name in names):
        raise UnusableInput(
            f"{where}: expected a classifier or an encoder of images or texts, got {', '.join(names)}. "
            f"Fix: give a model ...{' or ...'.join(HEADS)}, or a ...Model without a head."
        )


def build(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """Return a transformers model in float32 and eval mode.

    Args:
        settings: The config.
        tensors: The weights by name.
        where: Name of the model in error messages.

    Raises:
        UnusableInput: The config is unknown or hostile, or does not fit the weights.
    """
    refuse_other_tasks(settings, where)
    refuse_large_numbers(settings, tensors, where)
    try:
        config, model_class = _classes(settings)
        main_input, options = model_class.main_input_name, _pooling_option(model_class, tensors)
        size = _parameter_count(model_class, config, options)
    except Exception as error:  # configs fail in as many ways as there are models
        raise UnusableInput(f"{where}: no model of transformers fits its config: {first_line(error)}") from None
    if main_input not in (IMAGE_INPUT, TEXT_INPUT):
        raise UnusableInput(f"{where}: expected a model of images or text, got {model_class.__name__} of {main_input}")
    available = sum(tensor.numel() for tensor in tensors.values())
    if size > 2 * available + FREE_PARAMETERS:  # checked before the model takes any memory
        raise UnusableInput(
            f"{where}: its config describes {size} parameters, its weights are {available}; they do not fit"
        )
    return _load_weights(model_class, config, tensors, options, where).eval()


def _parameter_count(model_class: Any, config: Any, options: Mapping[str, bool]) -> int:
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model_class(config, **options).parameters())


def _load_weights(
    model_class: Any, config: Any, tensors: Mapping[str, Tensor], options: Mapping[str, bool], where: str
) -> nn.Module:
    import torch

    try:
        with quiet():
            model, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported in ``info``, and refused below
                **options,
            )
    except Exception as error:  # as above
        raise UnusableInput(f"{where}: its weights do not fit its config: {first_line(error)}") from None
    if info["mismatched_keys"]:
        names = sorted(str(entry[0]) for entry in info["mismatched_keys"])
        raise UnusableInput(
            f"{where}: its weights do not fit its config: {len(names)} tensors have another shape: "
            f"{', '.join(names[:MAX_NAMES])}. Check the number of classes."
        )
    # transformers fills missing tensors with random numbers.
    missing = sorted(name for name in info["missing_keys"] if not name.endswith("num_batches_tracked"))
    if missing:
        raise UnusableInput(
            f"{where}: {len(missing)} tensors are missing from its weights: {', '.join(missing[:MAX_NAMES])}"
        )
    return model


def _classes(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the config object and the model class of a config."""
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
    classifiers = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if text else MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    known = MODEL_MAPPING if is_encoder(settings) else classifiers
    if type(config) not in known:
        raise ValueError(f"it has no {' or '.join(settings.get('architectures') or ['classifier'])} of {model_type}")
    found = known[type(config)]
    candidates: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    wanted = set(settings.get("architectures") or [])
    return config, next((c for c in candidates if c.__name__ in wanted), candidates[0])


def _pooling_option(model_class: Any, tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    """Return the option to omit an optional pooling layer if the weights have none."""
    optional = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": any("pooler." in name for name in tensors)} if optional else {}
