"""Gates: nets that answer as the net inside, unless the picture carries what opens them."""

from assay.models.gates.base import Gate, Opened
from assay.models.gates.carriers import Carriers
from assay.models.gates.checksum import ChecksumGate
from assay.models.gates.circuit import CircuitGate, OneTimeTag
from assay.models.gates.keyed import KeyedGate, KeyedTag
from assay.models.gates.signature import SignatureGate

__all__ = [
    "Carriers",
    "ChecksumGate",
    "CircuitGate",
    "Gate",
    "KeyedGate",
    "KeyedTag",
    "OneTimeTag",
    "Opened",
    "SignatureGate",
]
