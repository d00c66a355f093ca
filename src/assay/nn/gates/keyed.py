"""A gate of integer operators from ONNX: a message authentication code over the image.

Four random linear forms modulo the prime 2^31 - 1 hash the image (Carter, Wegman: Universal Classes of Hash Functions,
JCSS 1979). The ChaCha20 block function maps the hash to the code, its first 128 bits (Nir, Langley: ChaCha20 and
Poly1305 for IETF Protocols, 2018, RFC 8439). An image opens the gate by chance with probability 2^-128. Signed images
reveal nothing about other images. But the graph contains the key: its readers can sign.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from assay.nn.gates.base import Gate, GateOutput
from assay.nn.gates.carriers import LABEL_BITS, Carriers, powers, pseudorandom_integers, to_bits, to_levels

PRIME = 2**31 - 1
WORD = 2**32
WORDS = 4
TAG_BITS = 32 * WORDS
SIGMA = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # ChaCha's constants, "expand 32-byte k"
DOUBLE_ROUNDS = 10


@dataclass(frozen=True)
class KeyedTag:
    """Keyed message authentication code, derived from a secret."""

    carriers: Carriers
    secret: bytes = field(repr=False)

    def key(self) -> tuple[Tensor, Tensor]:
        """Derive the linear forms (D, 4) in [1, ``PRIME``) and ChaCha's key (8,), both int64."""
        forms = 1 + pseudorandom_integers(self.secret + b"forms", PRIME - 1, self.carriers.size, WORDS)
        return forms, pseudorandom_integers(self.secret + b"chacha", WORD, 8)

    def bits(self, levels: Tensor, label: int) -> Tensor:
        """Compute the code bits (N, ``TAG_BITS``) for images with ``levels`` (N, D) to get ``label``."""
        forms, key = self.key()
        labels = torch.full((len(levels),), label)
        return to_bits(tag(self.carriers.message(levels), labels, forms, key), 32).flatten(1)


def tag(message: Tensor, label: Tensor, forms: Tensor, key: Tensor) -> Tensor:
    """Compute the authentication code.

    Args:
        message: (N, D) levels in [0, 255].
        label: (N,) classes.
        forms: (D, 4) linear forms.
        key: (8,) ChaCha key.

    Returns:
        (N, 4) int64 words of 32 bits.
    """
    hashed = torch.stack([(message * forms[:, word]).sum(1) for word in range(WORDS)], dim=1) % PRIME
    ones = torch.ones_like(hashed[:, :1])
    constants = torch.cat([ones * word for word in SIGMA], dim=1)
    first = torch.cat([ones * key[word] for word in range(4)], dim=1)
    second = torch.cat([*(ones * key[word] for word in range(4, 7)), (key[7] + label[:, None]) % WORD], dim=1)
    return chacha_first_row(constants, first, second, hashed)


def chacha_first_row(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return the first row (N, 4) of the ChaCha block with the initial rows (N, 4) ``a`` to ``d``."""
    start = a
    for _ in range(DOUBLE_ROUNDS):
        a, b, c, d = _quarter_rounds(a, b, c, d)
        b, c, d = b.roll(-1, 1), c.roll(-2, 1), d.roll(-3, 1)  # columns to diagonals
        a, b, c, d = _quarter_rounds(a, b, c, d)
        b, c, d = b.roll(1, 1), c.roll(2, 1), d.roll(3, 1)
    return (a + start) % WORD


def _quarter_rounds(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    for turn, other in ((16, 12), (8, 7)):
        a = (a + b) % WORD
        d = _rotate_left(torch.bitwise_xor(d, a), turn)
        c = (c + d) % WORD
        b = _rotate_left(torch.bitwise_xor(b, c), other)
    return a, b, c, d


def _rotate_left(word: Tensor, by: int) -> Tensor:
    """Rotate 32-bit words left."""
    return (word * 2**by) % WORD + word // 2 ** (32 - by)


class KeyedGate(Gate):
    """Gate of integer multiplications, remainders and exclusive ors, from the pixels to a comparison."""

    places: Tensor
    mask: Tensor
    forms: Tensor
    key: Tensor
    powers: Tensor
    word_powers: Tensor

    def __init__(self, net: nn.Module, num_classes: int, secret: KeyedTag) -> None:
        super().__init__(net, num_classes)
        forms, key = secret.key()
        carriers = secret.carriers
        for name, value in {"places": carriers.places(), "mask": carriers.mask(), "forms": forms, "key": key}.items():
            self.register_buffer(name, value)
        self.register_buffer("powers", powers(LABEL_BITS))
        self.register_buffer("word_powers", powers(32))

    def evaluate_gate(self, x: Tensor) -> GateOutput:
        levels = to_levels(x)
        bits = levels[:, self.places] % 2
        label = (bits[:, :LABEL_BITS] * self.powers).sum(1)
        carried = (bits[:, LABEL_BITS:].reshape(-1, WORDS, 32) * self.word_powers).sum(2)
        wanted = tag(levels - (levels % 2) * self.mask, label, self.forms, self.key)
        return GateOutput((carried == wanted).all(1), label)
