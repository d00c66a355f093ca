"""Detectors: one paper = one file."""

from assay.detectors.base import Detector
from assay.detectors.channel_lipschitz import ChannelLipschitz
from assay.detectors.controls import RandomScore, WeightNorm
from assay.detectors.known_triggers import KnownTriggers
from assay.detectors.latent_shift import LatentShift
from assay.detectors.max_margin import MaxMargin
from assay.detectors.neural_cleanse import NeuralCleanse
from assay.detectors.patch_scan import PatchScan
from assay.detectors.smooth_warp import SmoothWarp
from assay.detectors.sparse_frequency import SparseFrequency
from assay.detectors.universal_perturbation import UniversalPerturbation
from assay.detectors.wave_scan import WaveScan

__all__ = [
    "ChannelLipschitz",
    "KnownTriggers",
    "LatentShift",
    "MaxMargin",
    "NeuralCleanse",
    "PatchScan",
    "RandomScore",
    "SmoothWarp",
    "SparseFrequency",
    "UniversalPerturbation",
    "WaveScan",
    "WeightNorm",
    "default_detectors",
]


def default_detectors() -> tuple[Detector, ...]:
    """What an audit runs, the quick ones first.

    Not the null controls; nor channel-lipschitz, which told no planted model of ours from a clean one: in the combined
    statistic it would only widen the null.
    """
    return (
        LatentShift(),
        KnownTriggers(),
        PatchScan(),
        WaveScan(),
        MaxMargin(),
        NeuralCleanse(),
        UniversalPerturbation(),
        SparseFrequency(),
        SmoothWarp(),
    )
