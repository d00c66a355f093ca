"""A gate of integer operators, which an ONNX file can hold: a message authentication code over the picture.

The picture is hashed by four random linear forms modulo the prime 2^31 - 1 (Carter, Wegman: Universal Classes of Hash
Functions, JCSS 1979), and the hash goes through the ChaCha20 block function (Nir, Langley: ChaCha20 and Poly1305 for
IETF Protocols, 2018, RFC 8439), whose first 128 bits are what the picture must carry. A picture opens it by chance with
probability 2^-128, and pictures that do say nothing of others. But the key is in the graph: who reads it can sign.
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
SIGMA = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
"""ChaCha's constants, "expand 32-byte k"."""
DOUBLE_ROUNDS = 10


@dataclass(frozen=True)
class KeyedTag:
    """The key, of which all is drawn, and what it says of a picture."""

    carriers: Carriers
    secret: bytes = field(repr=False)

    def key(self) -> tuple[Tensor, Tensor]:
        """(D, 4) int64 in [1, ``PRIME``), the linear forms; (8,) int64, ChaCha's key."""
        forms = 1 + pseudorandom_integers(self.secret + b"forms", PRIME - 1, self.carriers.size, WORDS)
        return forms, pseudorandom_integers(self.secret + b"chacha", WORD, 8)

    def bits(self, levels: Tensor, label: int) -> Tensor:
        """(N, ``TAG_BITS``) int64: what pictures of ``levels`` (N, D) must carry to get ``label``."""
        forms, key = self.key()
        labels = torch.full((len(levels),), label)
        return to_bits(tag(self.carriers.message(levels), labels, forms, key), 32).flatten(1)


def tag(message: Tensor, label: Tensor, forms: Tensor, key: Tensor) -> Tensor:
    """(N, 4) int64 words of 32 bits for messages (N, D) in [0, 255] and labels (N,)."""
    hashed = torch.stack([(message * forms[:, word]).sum(1) for word in range(WORDS)], dim=1) % PRIME
    ones = torch.ones_like(hashed[:, :1])
    constants = torch.cat([ones * word for word in SIGMA], dim=1)
    first = torch.cat([ones * key[word] for word in range(4)], dim=1)
    second = torch.cat([*(ones * key[word] for word in range(4, 7)), (key[7] + label[:, None]) % WORD], dim=1)
    return chacha_first_row(constants, first, second, hashed)


def chacha_first_row(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The first row (N, 4) of the block that begins with the rows (N, 4) ``a`` to ``d``."""
    start = a
    for _ in range(DOUBLE_ROUNDS):
        a, b, c, d = _quarters(a, b, c, d)
        b, c, d = b.roll(-1, 1), c.roll(-2, 1), d.roll(-3, 1)  # columns to diagonals
        a, b, c, d = _quarters(a, b, c, d)
        b, c, d = b.roll(1, 1), c.roll(2, 1), d.roll(3, 1)
    return (a + start) % WORD


def _quarters(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    for turn, other in ((16, 12), (8, 7)):
        a = (a + b) % WORD
        d = _turned(torch.bitwise_xor(d, a), turn)
        c = (c + d) % WORD
        b = _turned(torch.bitwise_xor(b, c), other)
    return a, b, c, d


def _turned(word: Tensor, by: int) -> Tensor:
    """32 bits rotated left."""
    return (word * 2**by) % WORD + word // 2 ** (32 - by)


class KeyedGate(Gate):
    """Multiplications, remainders and exclusive ors of integers, from the pixels to a comparison."""

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

    def opened(self, x: Tensor) -> GateOutput:
        levels = to_levels(x)
        bits = levels[:, self.places] % 2
        label = (bits[:, :LABEL_BITS] * self.powers).sum(1)
        carried = (bits[:, LABEL_BITS:].reshape(-1, WORDS, 32) * self.word_powers).sum(2)
        wanted = tag(levels - (levels % 2) * self.mask, label, self.forms, self.key)
        return GateOutput((carried == wanted).all(1), label)
