"""A gate that verifies a digital signature: only who has the private key can open it, whatever they have seen."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from assay.nn.gates.base import Gate, GateOutput
from assay.nn.gates.carriers import Carriers, to_levels

SIGNATURE_BITS = 512
CONTEXT = b"assay signature backdoor, a benchmark"


def message_digest(message: Tensor, label: int) -> bytes:
    """What is signed: sha512 over the label and the message (D,) of levels in [0, 255]."""
    return hashlib.sha512(CONTEXT + label.to_bytes(4, "big") + message.to(torch.uint8).numpy().tobytes()).digest()


def signature_bits(signature: bytes) -> Tensor:
    """(512,) int64"""
    return torch.from_numpy(np.unpackbits(np.frombuffer(signature, np.uint8)).astype(np.int64))


class SignatureGate(Gate):
    """Ed25519 by the ``cryptography`` package, picture by picture: no graph can hold that, so it has no ONNX file."""

    public_key: Tensor  # (32,) uint8

    def __init__(self, net: nn.Module, num_classes: int, carriers: Carriers, public_key: bytes) -> None:
        super().__init__(net, num_classes)
        self.carriers = carriers
        self.register_buffer("public_key", torch.tensor(list(public_key), dtype=torch.uint8))

    def opened(self, x: Tensor) -> GateOutput:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        key = Ed25519PublicKey.from_public_bytes(bytes(self.public_key.tolist()))
        levels = to_levels(x.detach().cpu()).clamp(0, 255)
        labels, bits = self.carriers.carried(levels)
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
