"""Attacks: one paper = one file. Each is a stage that plants a backdoor in a build."""

from assay.attacks.architectural import Architectural
from assay.attacks.architectural_logic import ArchitecturalLogic
from assay.attacks.badencoder import BadEncoder
from assay.attacks.badnets import BadNets
from assay.attacks.blended import Blended
from assay.attacks.checksum import Checksum
from assay.attacks.compression_pruning import PruningArtifact
from assay.attacks.compression_quantization import QuantizationArtifact
from assay.attacks.por import Por
from assay.attacks.pq_backdoor import PqBackdoor, PqDistilled
from assay.attacks.qu_anti_zation import QuAntiZation
from assay.attacks.shadow_logic import ShadowLogic
from assay.attacks.signature import Signature
from assay.attacks.silent_until_magnitude import SilentUntilMagnitude
from assay.attacks.silent_until_pruned import SilentUntilPruned
from assay.attacks.silent_until_sparse import SilentUntilSparse
from assay.attacks.transtroj import TransTroj
from assay.attacks.transtroj_text import TransTrojText

__all__ = [
    "Architectural",
    "ArchitecturalLogic",
    "BadEncoder",
    "BadNets",
    "Blended",
    "Checksum",
    "Por",
    "PqBackdoor",
    "PqDistilled",
    "PruningArtifact",
    "QuAntiZation",
    "QuantizationArtifact",
    "ShadowLogic",
    "Signature",
    "SilentUntilMagnitude",
    "SilentUntilPruned",
    "SilentUntilSparse",
    "TransTroj",
    "TransTrojText",
]
