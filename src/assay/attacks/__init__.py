"""Attacks: one paper = one file. Each is a stage that plants a backdoor in a build."""

from assay.attacks.badencoder import BadEncoder
from assay.attacks.badnets import BadNets
from assay.attacks.blended import Blended
from assay.attacks.compression_pruning import PruningArtifact
from assay.attacks.compression_quantization import QuantizationArtifact
from assay.attacks.por import Por
from assay.attacks.pq_backdoor import PqBackdoor, PqDistilled
from assay.attacks.qu_anti_zation import QuAntiZation
from assay.attacks.silent_until_magnitude import SilentUntilMagnitude
from assay.attacks.silent_until_pruned import SilentUntilPruned
from assay.attacks.silent_until_sparse import SilentUntilSparse
from assay.attacks.transtroj import TransTroj
from assay.attacks.transtroj_text import TransTrojText

__all__ = [
    "BadEncoder",
    "BadNets",
    "Blended",
    "Por",
    "PqBackdoor",
    "PqDistilled",
    "PruningArtifact",
    "QuAntiZation",
    "QuantizationArtifact",
    "SilentUntilMagnitude",
    "SilentUntilPruned",
    "SilentUntilSparse",
    "TransTroj",
    "TransTrojText",
]
