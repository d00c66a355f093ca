"""Detectors: one paper = one file."""

from assay.detectors.base import Detector
from assay.detectors.blend_scan import BlendScan
from assay.detectors.channel_lipschitz import ChannelLipschitz
from assay.detectors.compression_gap import CompressionGap, CompressionGapMask
from assay.detectors.controls import RandomScore, WeightNorm
from assay.detectors.depth_scan import DepthScan
from assay.detectors.embedding_collapse import (
    EmbeddingCollapse,
    EmbeddingCollapseFrequency,
    EmbeddingCollapsePatch,
)
from assay.detectors.embedding_drift import EmbeddingDrift
from assay.detectors.filter_scan import FilterScan
from assay.detectors.fourier_key import FourierKeys
from assay.detectors.graph import Graph
from assay.detectors.inherited_trigger import InheritedTrigger
from assay.detectors.latent_shift import LatentShift
from assay.detectors.local_patch import LocalPatch
from assay.detectors.max_margin import MaxMargin
from assay.detectors.neural_cleanse import NeuralCleanse
from assay.detectors.noise_scan import NoiseScan
from assay.detectors.off_nearest import OffNearest
from assay.detectors.patch_scan import PatchScan
from assay.detectors.smooth_warp import SmoothWarp
from assay.detectors.sparse_frequency import SparseFrequency
from assay.detectors.token_collapse import TokenCollapse
from assay.detectors.universal_perturbation import UniversalPerturbation
from assay.detectors.warp_scan import WarpScan
from assay.detectors.wave_scan import WaveScan

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
]


def default_detectors() -> tuple[Detector, ...]:
    """What an audit runs, the quick ones first.

    Not the null controls; nor what told no planted model of ours from a clean one that the others did not, and would
    only widen the null: channel-lipschitz, latent-shift (its distances rank classes for the searches all the same), the
    searches for frequencies and warps, which the scans have overtaken, and compression-gap-mask.
    """
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
    """What an audit runs on an encoder.

    Not the search for frequencies: it found no planted encoder that the faint pattern did not, and was the one that
    called a clean one backdoored.
    """
    return (
        Graph(),
        FourierKeys(),
        EmbeddingCollapse(),
        EmbeddingCollapsePatch(),
        TokenCollapse(),
        EmbeddingDrift(),
    )
