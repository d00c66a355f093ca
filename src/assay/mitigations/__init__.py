"""Mitigations: stages to remove a backdoor or keep it inactive, one paper per file."""

from assay.mitigations.compressed_tuning import CompressedTuning
from assay.mitigations.efrap import Efrap
from assay.mitigations.low_bit_randomization import LowBitRandomization
from assay.mitigations.random_rounding import RandomRounding
from assay.mitigations.smoothing import Smoothing
from assay.mitigations.super_fine_tuning import SuperFineTuning
from assay.mitigations.trigger_unlearning import TriggerUnlearning
from assay.mitigations.universal_training import UniversalTraining

__all__ = [
    "CompressedTuning",
    "Efrap",
    "LowBitRandomization",
    "RandomRounding",
    "Smoothing",
    "SuperFineTuning",
    "TriggerUnlearning",
    "UniversalTraining",
]
