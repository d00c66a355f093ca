"""Gates: models with the wrapped model's logits, unless the image carries a valid code for another class."""

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
