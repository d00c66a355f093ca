"""Expected cost of the tests, for the order of an audit and for its estimate of the time left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.core.model import Artifact
from assay.detectors.base import Detector
from assay.detectors.compression.compression_gap import CompressionGap, CompressionGapMask
from assay.detectors.compression.rounding import OffNearest
from assay.detectors.encoder.embedding_collapse import (
    EmbeddingCollapse,
    EmbeddingCollapseFrequency,
    EmbeddingCollapsePatch,
)
from assay.detectors.encoder.embedding_drift import EmbeddingDrift
from assay.detectors.encoder.inherited_trigger import InheritedTrigger
from assay.detectors.encoder.token_collapse import TokenCollapse
from assay.detectors.graph.detector import Graph
from assay.detectors.requirement import Requirement
from assay.detectors.scans.blend import BlendScan
from assay.detectors.scans.color_depth import DepthScan
from assay.detectors.scans.filter import FilterScan
from assay.detectors.scans.noise import NoiseScan
from assay.detectors.scans.patch import PatchScan
from assay.detectors.scans.warp import WarpScan
from assay.detectors.scans.wave import WaveScan
from assay.detectors.trigger_inversion.latent_shift import LatentShift
from assay.detectors.trigger_inversion.local_patch import LocalPatch
from assay.detectors.trigger_inversion.max_margin import MaxMargin
from assay.detectors.trigger_inversion.neural_cleanse import NeuralCleanse
from assay.detectors.trigger_inversion.smooth_warp import SmoothWarp
from assay.detectors.trigger_inversion.sparse_frequency import SparseFrequency
from assay.detectors.trigger_inversion.universal_perturbation import UniversalPerturbation
from assay.detectors.weights.random_feature_key import FourierKeys
from assay.inversion.forward import LARGE_IMAGE_PIXELS

# Export of a graph, in seconds of one core: once, for each module without children, and for each parameter. Measured on
# ResNet-8, ResNet-20, ResNet-56 and ResNet-18, of 32 pixels: 1.2 to 7.4 s, and 3.5 s for the imports.
EXPORT_SECONDS, SECONDS_PER_MODULE, SECONDS_PER_PARAMETER = 4.0, 0.06, 4e-7
# Fraction of the passes that remains for images above ``LARGE_IMAGE_PIXELS``: 20,500 of 48,700 at 96 pixels.
LARGE_IMAGE_FRACTION = 0.42


@dataclass(frozen=True)
class Cost:
    """Expected cost of a test on one model.

    A pass is a forward pass of one image through one model. A backward pass counts as one more.
    """

    passes: int = 0
    passes_per_class: int = 0
    exports: bool = False  # True: it exports the graph first, and cannot stop in the middle


# Passes for 10 classes and 32 pixels. tests/detectors/test_cost.py counts them.
COSTS: Mapping[type[Detector], Cost] = {
    BlendScan: Cost(1_150),
    NoiseScan: Cost(550),
    DepthScan: Cost(500),
    FilterScan: Cost(1_150),
    WarpScan: Cost(700),
    PatchScan: Cost(1_700),
    WaveScan: Cost(900),
    MaxMargin: Cost(1_800, 100),
    LocalPatch: Cost(14_400),
    NeuralCleanse: Cost(9_200),
    UniversalPerturbation: Cost(8_200),
    CompressionGap: Cost(10_000),  # 7,500 without prospects, as of most clean models, else up to 40,000
    CompressionGapMask: Cost(20_000),
    SmoothWarp: Cost(8_000),
    SparseFrequency: Cost(8_000),
    LatentShift: Cost(640),
    InheritedTrigger: Cost(10_000),
    EmbeddingCollapse: Cost(10_000),
    EmbeddingCollapsePatch: Cost(10_000),
    EmbeddingCollapseFrequency: Cost(10_000),
    TokenCollapse: Cost(50_000),
    EmbeddingDrift: Cost(1_000),
    OffNearest: Cost(0),
    Graph: Cost(100, exports=True),
    FourierKeys: Cost(0, exports=True),
}
SEARCH, SCAN = Cost(8_000), Cost(1_000)  # of a detector that is not in the table, with and without gradients


def cost_of(detector: Detector) -> Cost:
    """Return the expected cost of a detector on a model with 10 classes and 32 pixels."""
    return COSTS.get(type(detector), SEARCH if Requirement.GRADIENTS in detector.needs else SCAN)


def expected_passes(cost: Cost, artifact: Artifact) -> float:
    """Return the expected number of passes.

    Args:
        cost: Cost of the test.
        artifact: The model.
    """
    shape = artifact.inputs.shape
    is_large = len(shape) == 3 and shape[1] * shape[2] > LARGE_IMAGE_PIXELS
    passes = cost.passes + cost.passes_per_class * (artifact.num_classes or 0)
    return passes * (LARGE_IMAGE_FRACTION if is_large else 1.0)


def expected_export_seconds(artifact: Artifact) -> float:
    """Return the expected seconds for the export of a model's graph."""
    modules = sum(1 for module in artifact.module.modules() if not any(True for _ in module.children()))
    parameters = sum(parameter.numel() for parameter in artifact.module.parameters())
    return EXPORT_SECONDS + SECONDS_PER_MODULE * modules + SECONDS_PER_PARAMETER * parameters
