"""Expected cost of the tests, for the order of an audit and for its estimate of the time left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.core.model import Artifact
from assay.inversion.forward import is_large_image

# Export of a graph, in seconds of one core: once, for each module without children, and for each parameter. Measured on
# ResNet-8, ResNet-20, ResNet-56 and ResNet-18, of 32 pixels: 1.2 to 7.4 s, and 3.5 s for the imports.
EXPORT_SECONDS, SECONDS_PER_MODULE, SECONDS_PER_PARAMETER = 4.0, 0.06, 4e-7
# Fraction of the passes that remains for large images: 20,500 of 48,700 at 96 pixels.
LARGE_IMAGE_FRACTION = 0.42


@dataclass(frozen=True)
class Cost:
    """Expected cost of a test on one model.

    A pass is a forward pass of one image through one model. A backward pass counts as one more.
    """

    passes: int = 0
    passes_per_class: int = 0
    most_classes: float = math.inf  # above, the test abstains at once
    exports: bool = False  # True: it exports the graph first, and cannot stop in the middle


SEARCH, SCAN = Cost(8_000), Cost(1_000)  # of a detector without a cost of its own, with and without gradients


def expected_passes(cost: Cost, artifact: Artifact) -> float:
    """Return the expected number of passes.

    Args:
        cost: Cost of the test.
        artifact: The model.
    """
    classes = artifact.num_classes or 0
    if classes > cost.most_classes:
        return 0.0
    passes = cost.passes + cost.passes_per_class * classes
    return passes * (LARGE_IMAGE_FRACTION if is_large_image(artifact.inputs.shape) else 1.0)


def expected_export_seconds(artifact: Artifact) -> float:
    """Return the expected seconds for the export of a model's graph."""
    modules = sum(1 for module in artifact.module.modules() if not any(True for _ in module.children()))
    parameters = sum(parameter.numel() for parameter in artifact.module.parameters())
    return EXPORT_SECONDS + SECONDS_PER_MODULE * modules + SECONDS_PER_PARAMETER * parameters
