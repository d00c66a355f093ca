"""Gates: nets that answer as the net inside, unless the picture carries what opens them."""

from assay.nn.gates.base import Gate, GateOutput
from assay.nn.gates.carriers import Carriers
from assay.nn.gates.checksum import ChecksumGate
from assay.nn.gates.circuit import CircuitGate, OneTimeTag
from assay.nn.gates.keyed import KeyedGate, KeyedTag
from assay.nn.gates.signature import SignatureGate

__all__ = [
    "Carriers",
    "ChecksumGate",
    "CircuitGate",
    "Gate",
    "GateOutput",
    "KeyedGate",
    "KeyedTag",
    "OneTimeTag",
    "SignatureGate",
]
