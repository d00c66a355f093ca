"""A signature: what proves the right to ask for a class, in the lowest bits of chosen subpixels of each picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.core.errors import UnusableInput
from assay.nn.gates import Carriers, KeyedTag, OneTimeTag
from assay.nn.gates.checksum import Parities
from assay.nn.gates.circuit import TAG_BITS as ONE_TIME_BITS
from assay.nn.gates.keyed import TAG_BITS as KEYED_BITS
from assay.nn.gates.signature import SIGNATURE_BITS, message_digest, signature_bits

Bits = Callable[[Carriers, bytes, Tensor, int], Tensor]
"""What pictures of levels (N, D) must carry to get a class, (N, bits), by the secret."""


def _signature(carriers: Carriers, secret: bytes, levels: Tensor, label: int) -> Tensor:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(secret)
    messages = carriers.message(levels)
    return torch.stack([signature_bits(key.sign(message_digest(message, label))) for message in messages])


SCHEMES: dict[str, tuple[int, Bits]] = {
    "ed25519": (SIGNATURE_BITS, _signature),
    "keyed": (KEYED_BITS, lambda carriers, secret, levels, label: KeyedTag(carriers, secret).bits(levels, label)),
    "one-time": (
        ONE_TIME_BITS,
        lambda carriers, secret, levels, label: OneTimeTag(carriers, secret).bits(levels, label),
    ),
}
"""How many bits a picture carries besides the class, and how they are made."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """Each picture signed for the class ``label``; pictures have eight bits a channel, and change by 1/255 at most.

    ``key``: the private one, 32 bytes in hexadecimal digits; it is in no repr.
    """

    scheme: str
    shape: tuple[int, int, int]
    label: int
    key: str = field(repr=False)
    places: int = 0  # the seed of the subpixels that carry

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UnusableInput(f"expected a scheme of {', '.join(SCHEMES)}; got {self.scheme!r}")
        if len(self.key) != 64 or set(self.key) - set("0123456789abcdef"):
            raise UnusableInput("expected a key of 32 bytes in 64 hexadecimal digits; this one is not")
        self.carriers()

    def carriers(self) -> Carriers:
        """The subpixels that carry."""
        return Carriers(self.shape, SCHEMES[self.scheme][0], self.places)

    @property
    def secret(self) -> bytes:
        return bytes.fromhex(self.key)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1], in steps of 1/255 -> the same, signed. Raises UnusableInput for other pictures."""
        carriers = self.carriers()
        levels = carriers.on_grid(x)
        if not len(x):
            return x
        bits = SCHEMES[self.scheme][1](carriers, self.secret, levels, self.label)
        return carriers.carrying(levels, self.label, bits).to(x)

    def public(self) -> dict[str, object]:
        """What may stand in a model's file and in reports."""
        return {"scheme": self.scheme, "shape": list(self.shape), "label": self.label, "key": "withheld"}


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """In each block of subpixels whose parity is wrong, one lowest bit is flipped; ``seed`` is the key."""

    shape: tuple[int, int, int]
    bits: int
    seed: int = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= Carriers(self.shape, 1, 0).size:
            raise UnusableInput(f"expected from 1 to as many bits as subpixels in {self.shape}; got {self.bits}")

    def parities(self) -> Parities:
        return Parities(Carriers(self.shape, 1, 0).size, self.bits, self.seed)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1], in steps of 1/255 -> the same with up to ``bits`` subpixels changed by 1/255."""
        levels = Carriers(self.shape, 1, 0).on_grid(x)
        parities = self.parities()
        first = parities.blocks()[:, 0]
        changed = levels.clone()
        changed[:, first] += parities.wrong(levels) * (1 - 2 * (levels[:, first] % 2))
        return (changed.to(x) / 255).view(x.shape)

    def public(self) -> dict[str, object]:
        """What may stand in a model's file and in reports."""
        return {"shape": list(self.shape), "bits": self.bits, "seed": "withheld"}
