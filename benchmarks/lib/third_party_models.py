"""Third-party CIFAR-10 ResNets."""

from __future__ import annotations

from assay import formats
from assay.core.model import Artifact
from lib.paths import SHARED


def cifar_resnet(name: str, *, features: bool = False) -> Artifact:
    """Load a CIFAR-10 ResNet with third-party weights.

    Args:
        name: Architecture without its suffix, as ``resnet20``.
        features: Return the feature extractor instead of the classifier.
    """
    path = SHARED / f"models/{name}-cifar10/model.safetensors"
    return formats.load(path, arch=f"{name}-cifar", features=features)
