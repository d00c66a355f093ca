"""The transformers model that a config and tensors describe: nothing in them can make it fetch or run something."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.formats.huggingface.quiet import quiet
from assay.formats.huggingface.text import INPUT

HEADS = ("ForImageClassification", "ForSequenceClassification")
"""What the names of architectures that name classes end in."""


def refuse_code(settings: object, where: str) -> None:
    """Raises where a setting asks for code or for files from elsewhere; nested settings are searched too."""
    if isinstance(settings, list):
        for value in settings:
            refuse_code(value, where)
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
        refuse_code(value, where)


def takes_text(model: nn.Module) -> bool:
    """Whether a transformers model's main input is tokens."""
    return model.main_input_name == INPUT  # type: ignore[comparison-overlap]


def is_encoder(settings: Mapping[str, Any]) -> bool:
    """Whether a config is of a bare model, which answers with hidden states."""
    found = settings.get("architectures")
    names = [str(name) for name in found] if isinstance(found, list) else []
    return bool(names) and all(name.endswith("Model") for name in names)


def supported(settings: Mapping[str, Any], where: str) -> None:
    """Raises where a config is of no model that can be taken."""
    found = settings.get("architectures")
    names = [str(name) for name in (found if isinstance(found, list) else [] if found is None else [found])]
    if names and not is_encoder(settings) and not any(head in name for head in HEADS for name in names):
        raise UnusableInput(
            f"{where}: only classifiers and encoders of pictures or texts are supported, came {', '.join(names)}; "
            f"give a model ...{' or ...'.join(HEADS)}, or a ...Model without a head"
        )


def build(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """The transformers model of a config with the given weights, in float32 and eval mode."""
    import torch

    supported(settings, where)
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
        with quiet():
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
