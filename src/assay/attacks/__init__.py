"""Attacks: stages to plant a backdoor in a build, one paper per file."""

from assay.attacks.compression.compression_pruning import PruningArtifact
from assay.attacks.compression.compression_quantization import QuantizationArtifact
from assay.attacks.compression.pq_backdoor import PqBackdoor, PqDistilled
from assay.attacks.compression.qu_anti_zation import QuAntiZation
from assay.attacks.compression.silent_until_magnitude import SilentUntilMagnitude
from assay.attacks.compression.silent_until_pruned import SilentUntilPruned
from assay.attacks.compression.silent_until_sparse import SilentUntilSparse
from assay.attacks.encoder.badencoder import BadEncoder
from assay.attacks.encoder.por import Por
from assay.attacks.encoder.transtroj import TransTroj
from assay.attacks.encoder.transtroj_text import TransTrojText
from assay.attacks.graph.architectural import Architectural
from assay.attacks.graph.architectural_logic import ArchitecturalLogic
from assay.attacks.graph.checksum import Checksum
from assay.attacks.graph.shadow_logic import ShadowLogic
from assay.attacks.graph.signature import Signature
from assay.attacks.poisoning.badnets import BadNets
from assay.attacks.poisoning.blended import Blended

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
