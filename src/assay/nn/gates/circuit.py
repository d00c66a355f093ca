"""A gate of linear layers and ReLUs only: a one-time authentication code over the picture, modulo the prime 257.

Sixteen sums over random halves of the picture, each less its multiples of 257 by long division in binary, where a
comparison is two ReLUs; what is left must be what the picture carries. Carter, Wegman: Universal Classes of Hash
Functions, JCSS 1979. A picture opens it by chance with probability 257^-16, or 2^-128. It is one-time: each signed
picture gives sixteen linear equations of the key away, and the key is in the weights. And a subpixel that is in none of
the sixteen halves, one in 65,536, can be changed in a signed picture unseen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from assay.nn.gates.carriers import LABEL_BITS, Carriers, label_bits, pseudorandom_integers, to_bits
from assay.nn.graph_edited import GraphEditedModel

PRIME = 257
ROWS = 16
ROW_BITS = 9
TAG_BITS = ROWS * ROW_BITS
SLOPE = 8.0
"""Half a level off the threshold a comparison is 0 or 1 whole, with float noise up to 7/16 of a level."""
TARGET_LOGIT = 1e4
"""What an open gate adds to the logit of its class."""


@dataclass(frozen=True)
class OneTimeTag:
    """The key, of which all is drawn, and what it says of a picture."""

    carriers: Carriers
    secret: bytes = field(repr=False)

    def key(self) -> tuple[Tensor, Tensor, Tensor]:
        """(D, ``ROWS``) of 0 and 1; (``LABEL_BITS``, ``ROWS``) and (``ROWS``,) in [0, ``PRIME``); all int64."""
        halves = pseudorandom_integers(self.secret + b"halves", 2, self.carriers.size, ROWS)
        return (
            halves,
            pseudorandom_integers(self.secret + b"label", PRIME, LABEL_BITS, ROWS),
            pseudorandom_integers(self.secret + b"pad", PRIME, ROWS),
        )

    def bits(self, levels: Tensor, label: int) -> Tensor:
        """(N, ``TAG_BITS``) int64: what pictures of ``levels`` (N, D) must carry to get ``label``."""
        halves, of_label, pad = self.key()
        message = self.carriers.message(levels)
        sums = torch.stack([(message * halves[:, row]).sum(1) for row in range(ROWS)], dim=1)
        return to_bits((sums + label_bits(label) @ of_label + pad) % PRIME, ROW_BITS).flatten(1)


class CircuitGate(GraphEditedModel):
    """Every step is ``nn.Linear`` or ``nn.ReLU``, in float64, whose whole numbers are exact; all of it are buffers."""

    def __init__(self, net: nn.Module, num_classes: int, secret: OneTimeTag) -> None:
        super().__init__()
        self.net = net
        carriers, (halves, of_label, pad) = secret.carriers, secret.key()
        self.gate = nn.Sequential(
            *_read(carriers, halves, pad, most=255 * carriers.size // 2 + 255 * 8 * math.isqrt(carriers.size)),
            *_compared(of_label),
            *_open(num_classes),
        ).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits + self.gate(x.flatten(1).double()).to(logits.dtype)


def _read(carriers: Carriers, halves: Tensor, pad: Tensor, *, most: int) -> list[nn.Module]:
    """Pixels (N, D) in [0, 1] -> (N, ``ROWS`` + carriers): the sums of the message modulo 257, and the carried bits.

    ``most``: a bound on the sums. The carried bits are in the sums too, and are taken out: the message is without.
    """
    places, count = carriers.places(), carriers.count
    first = linear(carriers.size, ROWS + count)
    first.weight[:ROWS] = 255 * halves.T.double()
    first.bias[:ROWS] = pad.double()
    first.weight[ROWS + torch.arange(count), places] = 255.0
    levels = max(1, math.ceil(math.log2(most / PRIME)))
    sums = [PRIME * 2.0**k for k in reversed(range(levels))]
    bits = [2.0**k for k in reversed(range(1, 8))]
    # The sums are reduced only after the bits are known, so that these can be taken out of them: first the bits.
    out = linear(ROWS + count, ROWS + count)
    out.weight += torch.eye(ROWS + count)
    out.weight[:ROWS, ROWS:] = -halves[places].T.double()
    big = 1e12  # a multiple that no number has: these are left alone
    return [
        first,
        *(layer for c in bits for layer in _less([big] * ROWS + [c] * count)),
        out,
        *(layer for c in sums for layer in _less([c] * ROWS + [big] * count)),
    ]


def _compared(of_label: Tensor) -> list[nn.Module]:
    """(N, ``ROWS`` + carriers) -> two values for each sum, 1 apart where it is carried; and the label's bits."""
    width = ROWS + LABEL_BITS + TAG_BITS
    with_label = linear(width, width)
    with_label.weight += torch.eye(width)
    with_label.weight[:ROWS, ROWS : ROWS + LABEL_BITS] = of_label.T.double()
    levels = math.ceil(math.log2(LABEL_BITS + 1)) + 1
    reduced = [
        layer
        for k in reversed(range(levels))
        for layer in _less([PRIME * 2.0**k] * ROWS + [1e12] * (LABEL_BITS + TAG_BITS))
    ]
    # |sum - what is carried| in two parts, and the label's bits
    apart = linear(width, 2 * ROWS + LABEL_BITS)
    for row in range(ROWS):
        start = ROWS + LABEL_BITS + ROW_BITS * row
        for sign, place in ((1.0, row), (-1.0, ROWS + row)):
            apart.weight[place, row] = sign
            apart.weight[place, start : start + ROW_BITS] = -sign * 2.0 ** torch.arange(ROW_BITS)
    apart.weight[2 * ROWS + torch.arange(LABEL_BITS), ROWS + torch.arange(LABEL_BITS)] = 1.0
    # 1 where the two parts together are less than half a level, as a difference of two: float noise does not add up.
    same = linear(2 * ROWS + LABEL_BITS, 2 * ROWS + LABEL_BITS)
    sums = torch.arange(ROWS)
    for start, by in ((0, 0.5), (ROWS, -0.5)):
        same.weight[start + sums, sums] = -SLOPE
        same.weight[start + sums, ROWS + sums] = -SLOPE
        same.bias[start : start + ROWS] = SLOPE * 0.5 + by
    bits = 2 * ROWS + torch.arange(LABEL_BITS)
    same.weight[bits, bits] = 1.0
    return [with_label, *reduced, apart, nn.ReLU(), same, nn.ReLU()]


def _open(num_classes: int) -> list[nn.Module]:
    """What ``_compared`` says -> (N, K): ``HEIGHT`` for the class that the label names, where all sums agree."""
    both = linear(2 * ROWS + LABEL_BITS, num_classes)
    both.weight[:, :ROWS], both.weight[:, ROWS : 2 * ROWS] = 1.0, -1.0
    for label in range(num_classes):
        bits = label_bits(label).double()
        both.weight[label, 2 * ROWS :] = 2 * bits - 1  # as many as there are ones, where the bits are the label's
        both.bias[label] = -(ROWS + float(bits.sum())) + 0.5
    raised = linear(num_classes, num_classes)
    raised.weight += 2 * TARGET_LOGIT * torch.eye(num_classes)
    return [both, nn.ReLU(), raised]


def _less(multiples: list[float]) -> list[nn.Module]:
    """(N, R) -> (N, R): each number less its multiple ``c`` where it is at least that: one step of a long division."""
    count = len(multiples)
    c, eye = torch.tensor(multiples, dtype=torch.float64), torch.eye(count, dtype=torch.float64)
    compare = linear(count, 3 * count)
    compare.weight.copy_(torch.cat([eye, SLOPE * eye, SLOPE * eye]))
    compare.bias.copy_(torch.cat([torch.zeros(count), SLOPE * (0.5 - c) + 0.5, SLOPE * (0.5 - c) - 0.5]))
    take = linear(3 * count, count)
    take.weight.copy_(torch.cat([eye, -c[:, None] * eye, c[:, None] * eye], dim=1))
    return [compare, nn.ReLU(), take]


def linear(width: int, out: int) -> nn.Linear:
    """A layer of zeros in float64, to be filled in."""
    layer = nn.Linear(width, out, dtype=torch.float64).requires_grad_(False)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
