"""Signature and checksum triggers: a code for a class in the lowest bits of selected subpixels of each image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.nn.gates.carriers import Carriers
from assay.nn.gates.checksum import Parities
from assay.nn.gates.circuit import TAG_BITS as ONE_TIME_BITS
from assay.nn.gates.circuit import OneTimeTag
from assay.nn.gates.keyed import TAG_BITS as KEYED_BITS
from assay.nn.gates.keyed import KeyedTag
from assay.nn.gates.signature import SIGNATURE_BITS, message_digest, signature_bits

# (carriers, secret, levels (N, D), class) -> code bits (N, bits)
CodeFunction = Callable[[Carriers, bytes, Tensor, int], Tensor]


def _ed25519_bits(carriers: Carriers, secret: bytes, levels: Tensor, label: int) -> Tensor:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(secret)
    messages = carriers.message(levels)
    return torch.stack([signature_bits(key.sign(message_digest(message, label))) for message in messages])


# Number of code bits per image, and the function that computes them.
SCHEMES: dict[str, tuple[int, CodeFunction]] = {
    "ed25519": (SIGNATURE_BITS, _ed25519_bits),
    "keyed": (KEYED_BITS, lambda carriers, secret, levels, label: KeyedTag(carriers, secret).bits(levels, label)),
    "one-time": (
        ONE_TIME_BITS,
        lambda carriers, secret, levels, label: OneTimeTag(carriers, secret).bits(levels, label),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Signed:
    """Signature of each image for the class ``label``. Images have 8 bits per channel and change by at most 1/255."""

    scheme: str  # one of SCHEMES
    shape: tuple[int, int, int]  # (C, H, W)
    label: int
    key: str = field(repr=False)  # private key, 32 bytes in hexadecimal digits
    places: int = 0  # seed of the carriers

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UnusableInput(f"expected a scheme of {', '.join(SCHEMES)}, got {self.scheme!r}")
        if len(self.key) != 64 or set(self.key) - set("0123456789abcdef"):
            raise UnusableInput("expected a key of 64 hexadecimal digits (32 bytes), got another text")
        self.carriers()

    def carriers(self) -> Carriers:
        """Return the carriers of the code."""
        return Carriers(self.shape, SCHEMES[self.scheme][0], self.places)

    @property
    def secret(self) -> bytes:
        return bytes.fromhex(self.key)

    def __call__(self, x: Tensor) -> Tensor:
        """Sign images (N, C, H, W) in [0, 1]. Raises UnusableInput unless they are in steps of 1/255."""
        carriers = self.carriers()
        levels = carriers.exact_levels(x)
        if not len(x):
            return x
        bits = SCHEMES[self.scheme][1](carriers, self.secret, levels, self.label)
        return carriers.embed(levels, self.label, bits).to(x)

    def public(self) -> dict[str, object]:
        """Return the public settings, for model files and reports."""
        return {"scheme": self.scheme, "shape": list(self.shape), "label": self.label, "key": "withheld"}


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """Flips one lowest bit in each block of subpixels with a wrong parity."""

    shape: tuple[int, int, int]  # (C, H, W)
    bits: int  # number of blocks
    seed: int = field(repr=False)  # the key

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= Carriers(self.shape, 1, 0).size:
            raise UnusableInput(
                f"expected from 1 to {math.prod(self.shape)} bits for images of shape {self.shape}, got {self.bits}"
            )

    def parities(self) -> Parities:
        return Parities(Carriers(self.shape, 1, 0).size, self.bits, self.seed)

    def __call__(self, x: Tensor) -> Tensor:
        """Change up to ``bits`` subpixels of images (N, C, H, W), in steps of 1/255, by 1/255."""
        levels = Carriers(self.shape, 1, 0).exact_levels(x)
        parities = self.parities()
        first = parities.blocks()[:, 0]
        changed = levels.clone()
        changed[:, first] += parities.wrong(levels) * (1 - 2 * (levels[:, first] % 2))
        return (changed.to(x) / 255).view(x.shape)

    def public(self) -> dict[str, object]:
        """Return the public settings, for model files and reports."""
        return {"shape": list(self.shape), "bits": self.bits, "seed": "withheld"}
