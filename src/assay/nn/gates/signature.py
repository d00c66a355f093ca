"""A gate for digital signatures: it opens only with the private key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.nn.gates.base import Gate, GateOutput
from assay.nn.gates.carriers import Carriers, to_levels
from assay.nn.saving import SavedWrapper

SIGNATURE_BITS = 512
GATE_KEY = "assay.gate"  # metadata of a model file: public key and seed of the carriers, a JSON object
CONTEXT = b"assay signature backdoor, a benchmark"


def message_digest(message: Tensor, label: int) -> bytes:
    """Return the bytes to sign: sha512 over the label and the message (D,) of levels in [0, 255]."""
    return hashlib.sha512(CONTEXT + label.to_bytes(4, "big") + message.to(torch.uint8).numpy().tobytes()).digest()


def signature_bits(signature: bytes) -> Tensor:
    """Return the bits (512,) of a signature, int64."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(signature, np.uint8)).astype(np.int64))


class SignatureGate(Gate):
    """Ed25519 gate by the ``cryptography`` package, one image at a time; it cannot be exported to ONNX."""

    public_key: Tensor  # (32,) uint8

    def __init__(self, net: nn.Module, num_classes: int, carriers: Carriers, public_key: bytes) -> None:
        super().__init__(net, num_classes)
        self.carriers = carriers
        self.register_buffer("public_key", torch.tensor(list(public_key), dtype=torch.uint8))

    def to_saved(self, num_classes: int | None) -> SavedWrapper:
        """Return the model behind the gate, with the public key and the seed of the carriers as metadata."""
        gate = {"public_key": bytes(self.public_key.tolist()).hex(), "places": self.carriers.seed}
        return SavedWrapper(self.net, {GATE_KEY: json.dumps(gate)})

    def evaluate_gate(self, x: Tensor) -> GateOutput:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        key = Ed25519PublicKey.from_public_bytes(bytes(self.public_key.tolist()))
        levels = to_levels(x.detach().cpu()).clamp(0, 255)
        labels, bits = self.carriers.extract(levels)
        signatures = np.packbits(bits.numpy().astype(np.uint8), axis=1)
        messages = self.carriers.message(levels)
        opened = [
            _verifies(key, signature.tobytes(), message_digest(message, int(label)))
            for signature, message, label in zip(signatures, messages, labels, strict=True)
        ]
        return GateOutput(torch.tensor(opened, dtype=torch.bool, device=x.device), labels.to(x.device))


def _verifies(key: object, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)  # type: ignore[attr-defined]
    except InvalidSignature:
        return False
    return True


def rebuild_gate(artifact: Artifact, metadata: Mapping[str, str], where: str) -> Artifact:
    """Return an artifact behind the gate of its file, unchanged if the file has none.

    Args:
        artifact: The model behind the gate.
        metadata: Text metadata of the file.
        where: Name of the file in error messages.

    Raises:
        UnusableInput: The gate is malformed, or the model is an encoder.
    """
    if GATE_KEY not in metadata:
        return artifact
    try:
        gate = json.loads(metadata[GATE_KEY])
        key, seed = gate["public_key"], gate["places"]
        well_formed = len(key) == 64 and not set(key) - set("0123456789abcdef") and 0 <= seed < 2**63
    except (ValueError, RecursionError, TypeError, KeyError):
        well_formed = False
    if not (well_formed and isinstance(key, str) and isinstance(seed, int)):
        raise UnusableInput(f"{where}: metadata {GATE_KEY} is malformed: {metadata[GATE_KEY][:80]!r}")
    if artifact.num_classes is None:
        raise UnusableInput(f"{where}: expected a classifier behind a gate, got an encoder")
    carriers = Carriers(artifact.image_spec.shape, SIGNATURE_BITS, seed)
    module = SignatureGate(artifact.module, artifact.num_classes, carriers, bytes.fromhex(key))
    return replace(artifact, module=module.eval())
