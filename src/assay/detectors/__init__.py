"""Detectors: tests for backdoors, one paper per file.

``default_detectors`` and ``encoder_detectors`` run in every audit of a classifier or an encoder. ``RandomScore`` and
``WeightNorm`` are null controls. The others are baselines: bench specs and users can name them, but no audit runs them
by default. None of the baselines detected a planted model of ours that the default detectors miss. More detectors would
only widen the null distribution. The baselines are ``ChannelLipschitz``, ``LatentShift``, ``SmoothWarp``,
``SparseFrequency``, ``CompressionGapMask`` and ``EmbeddingCollapseFrequency``. The scans detect more than the searches
for warps and frequencies. The distances of ``LatentShift`` still rank classes for the searches.
"""

from assay.detectors.base import Detector
from assay.detectors.compression.compression_gap import CompressionGap, CompressionGapMask
from assay.detectors.compression.rounding import OffNearest
from assay.detectors.controls import RandomScore, WeightNorm
from assay.detectors.encoder.embedding_collapse import (
    EmbeddingCollapse,
    EmbeddingCollapseFrequency,
    EmbeddingCollapsePatch,
)
from assay.detectors.encoder.embedding_drift import EmbeddingDrift
from assay.detectors.encoder.inherited_trigger import InheritedTrigger
from assay.detectors.encoder.token_collapse import TokenCollapse
from assay.detectors.graph.detector import Graph
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
from assay.detectors.weights.channel_lipschitz import ChannelLipschitz
from assay.detectors.weights.random_feature_key import FourierKeys

__all__ = [
    "BlendScan",
    "ChannelLipschitz",
    "CompressionGap",
    "CompressionGapMask",
    "DepthScan",
    "EmbeddingCollapse",
    "EmbeddingCollapseFrequency",
    "EmbeddingCollapsePatch",
    "EmbeddingDrift",
    "FilterScan",
    "FourierKeys",
    "Graph",
    "InheritedTrigger",
    "LatentShift",
    "LocalPatch",
    "MaxMargin",
    "NeuralCleanse",
    "NoiseScan",
    "OffNearest",
    "PatchScan",
    "RandomScore",
    "SmoothWarp",
    "SparseFrequency",
    "TokenCollapse",
    "UniversalPerturbation",
    "WarpScan",
    "WaveScan",
    "WeightNorm",
    "default_detectors",
    "encoder_detectors",
    "quick_detectors",
]


def default_detectors() -> tuple[Detector, ...]:
    """Return the detectors of an audit of a classifier, fast ones first."""
    return (
        Graph(),
        FourierKeys(),
        BlendScan(),
        NoiseScan(),
        DepthScan(),
        FilterScan(),
        WarpScan(),
        PatchScan(),
        WaveScan(),
        MaxMargin(),
        LocalPatch(),
        NeuralCleanse(),
        UniversalPerturbation(),
        CompressionGap(),
        OffNearest(),
        InheritedTrigger(),
    )


def encoder_detectors() -> tuple[Detector, ...]:
    """Return the detectors of an audit of an encoder.

    ``EmbeddingCollapseFrequency`` is a baseline: it detected no poisoned encoder that the faint pattern misses, and was
    the one detector that flagged a clean encoder.
    """
    return (
        Graph(),
        FourierKeys(),
        EmbeddingCollapse(),
        EmbeddingCollapsePatch(),
        TokenCollapse(),
        EmbeddingDrift(),
    )


def quick_detectors(classes: int | None) -> tuple[Detector, ...]:
    """Return the detectors of a quick audit: all scans, and the search that adds most to them.

    ``benchmarks/performance/quick_audit.py`` compares the searches on models with stored scores. ``MaxMargin`` adds
    most. It abstains on models with too many classes, and these get ``NeuralCleanse`` instead. The list has no tests of
    the computation, because they need an ONNX export (5 CPU seconds for a ResNet-20).

    Args:
        classes: Number of classes of the model; None: an encoder.
    """
    if classes is None:
        return (EmbeddingCollapse(), TokenCollapse())
    search = MaxMargin()
    scans = (BlendScan(), NoiseScan(), DepthScan(), FilterScan(), WarpScan(), PatchScan(), WaveScan())
    return (*scans, search if classes <= search.most_classes else NeuralCleanse())
