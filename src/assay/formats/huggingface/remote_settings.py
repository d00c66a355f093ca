"""Settings of a config that make transformers or timm fetch files from elsewhere."""

from __future__ import annotations

from assay.core.errors import UnusableInput

REPOSITORY_KEYS = frozenset({"backbone", "backbone_name", "base_model_name_or_path", "checkpoint_path"})
PRETRAINED_KEYS = frozenset({"pretrained", "use_pretrained_backbone", "use_timm_backbone"})
# Starts of names that timm and the hub's client resolve.
REMOTE_STARTS = ("hf-hub:", "hf_hub:", "hf://", "local-dir:")


def refuse_remote(key: str, value: object, where: str) -> None:
    """Raise UnusableInput if one setting asks for files from elsewhere.

    Args:
        key: Name of the setting.
        value: Its value.
        where: Name of the file in error messages.
    """
    text = value if isinstance(value, str) else ""
    repository = key in REPOSITORY_KEYS and text
    implementation = key.endswith("_implementation") and "/" in text  # of attention and experts: a kernel of the hub
    if repository or implementation or (key in PRETRAINED_KEYS and value) or text.lower().startswith(REMOTE_STARTS):
        raise UnusableInput(
            f"{where}: expected a model with all its parts, got one that asks for files from elsewhere "
            f"({key}: {str(value)[:100]}). Fix: remove that setting."
        )
