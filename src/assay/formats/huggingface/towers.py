"""The vision tower of a model of two towers, as an image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from assay.core.errors import UnusableInput

# model_type of the two towers -> model_type and class of the vision tower
TOWERS = {
    "clip": ("clip_vision_model", "CLIPVisionModel"),
    "chinese_clip": ("chinese_clip_vision_model", "ChineseCLIPVisionModel"),
    "siglip": ("siglip_vision_model", "SiglipVisionModel"),
}
PREFIX = "vision_model."  # of the tower's tensors
PROJECTED = "WithProjection"  # in class names of a tower with a projection behind it


def select_tower(
    config: dict[str, Any], tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Any], Mapping[str, Tensor], tuple[str, ...]]:
    """Return config and weights of the vision tower, and a note; a model of one tower stays unchanged.

    Args:
        config: The config.
        tensors: The weights by name.
        where: Name of the model in error messages.

    Raises:
        UnusableInput: The towers are of an unknown kind.
    """
    towers = "vision_config" in config and "text_config" in config
    names = [str(name) for name in config.get("architectures") or []]
    if not towers and not any(PROJECTED in name for name in names):
        return config, tensors, ()
    model_type = str(config.get("model_type"))
    known = {**TOWERS, **{tower: (tower, name) for tower, name in TOWERS.values()}}
    stated = config.get("vision_config") if towers else config
    if model_type not in known or not isinstance(stated, dict):
        raise UnusableInput(
            f"{where}: expected two towers of {', '.join(TOWERS)}, got {model_type[:40]} ({', '.join(names)[:80]}). "
            "Fix: save its vision tower alone as an encoder."
        )
    tower, name = known[model_type]
    chosen = {key: tensor for key, tensor in tensors.items() if key.startswith(PREFIX)}
    if not chosen:
        raise UnusableInput(f"{where}: expected tensors {PREFIX}..., got none. Fix: save its vision tower alone.")
    left = len(tensors) - len(chosen)
    note = (
        f"the vision tower of {', '.join(names)[:80] or model_type} is examined as an image encoder, before its "
        f"projection; the other {left} tensors, for texts and the projection, are not examined"
    )
    return {**stated, "model_type": tower, "architectures": [name]}, chosen, (note,)
