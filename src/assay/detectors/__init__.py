"""Detectors: one paper = one file."""

from assay.detectors.base import Detector
from assay.detectors.channel_lipschitz import ChannelLipschitz
from assay.detectors.controls import RandomScore, WeightNorm
from assay.detectors.known_triggers import KnownTriggers
from assay.detectors.latent_shift import LatentShift
from assay.detectors.max_margin import MaxMargin
from assay.detectors.neural_cleanse import NeuralCleanse
from assay.detectors.smooth_warp import SmoothWarp
from assay.detectors.sparse_frequency import SparseFrequency
from assay.detectors.universal_perturbation import UniversalPerturbation

__all__ = [
    "ChannelLipschitz",
    "KnownTriggers",
    "LatentShift",
    "MaxMargin",
    "NeuralCleanse",
    "RandomScore",
    "SmoothWarp",
    "SparseFrequency",
    "UniversalPerturbation",
    "WeightNorm",
    "default_detectors",
]


def default_detectors() -> tuple[Detector, ...]:
    """What an audit runs: everything but the null controls, the quick ones first."""
    return (
        ChannelLipschitz(),
        LatentShift(),
        KnownTriggers(),
        MaxMargin(),
        NeuralCleanse(),
        UniversalPerturbation(),
        SparseFrequency(),
        SmoothWarp(),
    )
