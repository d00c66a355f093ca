"""A gate of linear layers and ReLUs only: a one-time authentication code over the image, modulo the prime 257.

The code has sixteen sums over random halves of the image. Binary long division reduces them modulo 257; a comparison
takes two ReLUs. The carriers must hold the remainders. Carter, Wegman: Universal Classes of Hash Functions, JCSS 1979.
An image opens the gate by chance with probability 257^-16, or 2^-128. The code is one-time: each signed image reveals
sixteen linear equations of the key, and the weights contain the key. One subpixel in 65,536 is in none of the sixteen
halves. Changes of it in a signed image go undetected.
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
SLOPE = 8.0  # makes comparisons exactly 0 or 1 half a level off the threshold, with float noise up to 7/16 of a level
TARGET_LOGIT = 1e4  # added to the logit of the requested class by an open gate


@dataclass(frozen=True)
class OneTimeTag:
    """One-time authentication code, derived from a secret key."""

    carriers: Carriers
    secret: bytes = field(repr=False)

    def key(self) -> tuple[Tensor, Tensor, Tensor]:
        """Derive the key.

        Returns:
            Image halves (D, ``ROWS``), 0 or 1; label terms (``LABEL_BITS``, ``ROWS``) and pad (``ROWS``,) in
            [0, ``PRIME``); all int64.
        """
        halves = pseudorandom_integers(self.secret + b"halves", 2, self.carriers.size, ROWS)
        return (
            halves,
            pseudorandom_integers(self.secret + b"label", PRIME, LABEL_BITS, ROWS),
            pseudorandom_integers(self.secret + b"pad", PRIME, ROWS),
        )

    def bits(self, levels: Tensor, label: int) -> Tensor:
        """Compute the code bits (N, ``TAG_BITS``) for images with ``levels`` (N, D) to get ``label``."""
        halves, of_label, pad = self.key()
        message = self.carriers.message(levels)
        sums = torch.stack([(message * halves[:, row]).sum(1) for row in range(ROWS)], dim=1)
        return to_bits((sums + label_bits(label) @ of_label + pad) % PRIME, ROW_BITS).flatten(1)


class CircuitGate(GraphEditedModel):
    """Gate of ``nn.Linear`` and ``nn.ReLU`` in float64, exact for its integers; no weight is trained."""

    def __init__(self, net: nn.Module, num_classes: int, secret: OneTimeTag) -> None:
        super().__init__()
        self.net = net
        carriers, (halves, of_label, pad) = secret.carriers, secret.key()
        self.gate = nn.Sequential(
            *_read_layers(carriers, halves, pad, most=255 * carriers.size // 2 + 255 * 8 * math.isqrt(carriers.size)),
            *_compare_layers(of_label),
            *_open_layers(num_classes),
        ).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits + self.gate(x.flatten(1).double()).to(logits.dtype)


def _read_layers(carriers: Carriers, halves: Tensor, pad: Tensor, *, most: int) -> list[nn.Module]:
    """Build layers: pixels (N, D) in [0, 1] -> (N, ``ROWS`` + carriers), sums of the message modulo 257 and code bits.

    The first sums include the code bits. A later layer subtracts them, because the message excludes them.

    Args:
        carriers: Carriers of the code.
        halves: (D, ``ROWS``) image halves.
        pad: (``ROWS``,) pad.
        most: Upper bound of the sums.
    """
    places, count = carriers.places(), carriers.count
    first = zero_linear(carriers.size, ROWS + count)
    first.weight[:ROWS] = 255 * halves.T.double()
    first.bias[:ROWS] = pad.double()
    first.weight[ROWS + torch.arange(count), places] = 255.0
    levels = max(1, math.ceil(math.log2(most / PRIME)))
    sums = [PRIME * 2.0**k for k in reversed(range(levels))]
    bits = [2.0**k for k in reversed(range(1, 8))]
    # The bits come first: they must be known before they can be subtracted from the sums.
    out = zero_linear(ROWS + count, ROWS + count)
    out.weight += torch.eye(ROWS + count)
    out.weight[:ROWS, ROWS:] = -halves[places].T.double()
    big = 1e12  # larger than any number: those entries stay unchanged
    return [
        first,
        *(layer for c in bits for layer in _division_step([big] * ROWS + [c] * count)),
        out,
        *(layer for c in sums for layer in _division_step([c] * ROWS + [big] * count)),
    ]


def _compare_layers(of_label: Tensor) -> list[nn.Module]:
    """Build layers: (N, ``ROWS`` + carriers) -> two values per sum, 1 apart on a match; and label bits."""
    width = ROWS + LABEL_BITS + TAG_BITS
    with_label = zero_linear(width, width)
    with_label.weight += torch.eye(width)
    with_label.weight[:ROWS, ROWS : ROWS + LABEL_BITS] = of_label.T.double()
    levels = math.ceil(math.log2(LABEL_BITS + 1)) + 1
    reduced = [
        layer
        for k in reversed(range(levels))
        for layer in _division_step([PRIME * 2.0**k] * ROWS + [1e12] * (LABEL_BITS + TAG_BITS))
    ]
    # Positive and negative part of sum - code, and the label's bits.
    apart = zero_linear(width, 2 * ROWS + LABEL_BITS)
    for row in range(ROWS):
        start = ROWS + LABEL_BITS + ROW_BITS * row
        for sign, place in ((1.0, row), (-1.0, ROWS + row)):
            apart.weight[place, row] = sign
            apart.weight[place, start : start + ROW_BITS] = -sign * 2.0 ** torch.arange(ROW_BITS)
    apart.weight[2 * ROWS + torch.arange(LABEL_BITS), ROWS + torch.arange(LABEL_BITS)] = 1.0
    # 1 if both parts together are below half a level. The difference of two values cancels float noise.
    same = zero_linear(2 * ROWS + LABEL_BITS, 2 * ROWS + LABEL_BITS)
    sums = torch.arange(ROWS)
    for start, by in ((0, 0.5), (ROWS, -0.5)):
        same.weight[start + sums, sums] = -SLOPE
        same.weight[start + sums, ROWS + sums] = -SLOPE
        same.bias[start : start + ROWS] = SLOPE * 0.5 + by
    bits = 2 * ROWS + torch.arange(LABEL_BITS)
    same.weight[bits, bits] = 1.0
    return [with_label, *reduced, apart, nn.ReLU(), same, nn.ReLU()]


def _open_layers(num_classes: int) -> list[nn.Module]:
    """Build layers: output of ``_compare_layers`` -> (N, K), ``TARGET_LOGIT`` for the label's class on a full match."""
    both = zero_linear(2 * ROWS + LABEL_BITS, num_classes)
    both.weight[:, :ROWS], both.weight[:, ROWS : 2 * ROWS] = 1.0, -1.0
    for label in range(num_classes):
        bits = label_bits(label).double()
        both.weight[label, 2 * ROWS :] = 2 * bits - 1  # equals the number of ones if the bits match
        both.bias[label] = -(ROWS + float(bits.sum())) + 0.5
    raised = zero_linear(num_classes, num_classes)
    raised.weight += 2 * TARGET_LOGIT * torch.eye(num_classes)
    return [both, nn.ReLU(), raised]


def _division_step(multiples: list[float]) -> list[nn.Module]:
    """Build one step of a long division, (N, R) -> (N, R): subtract the multiple from each number at least as large."""
    count = len(multiples)
    c, eye = torch.tensor(multiples, dtype=torch.float64), torch.eye(count, dtype=torch.float64)
    compare = zero_linear(count, 3 * count)
    compare.weight.copy_(torch.cat([eye, SLOPE * eye, SLOPE * eye]))
    compare.bias.copy_(torch.cat([torch.zeros(count), SLOPE * (0.5 - c) + 0.5, SLOPE * (0.5 - c) - 0.5]))
    take = zero_linear(3 * count, count)
    take.weight.copy_(torch.cat([eye, -c[:, None] * eye, c[:, None] * eye], dim=1))
    return [compare, nn.ReLU(), take]


def zero_linear(width: int, out: int) -> nn.Linear:
    """Return a float64 layer of zeros, to be filled in.

    Args:
        width: Number of inputs.
        out: Number of outputs.
    """
    layer = nn.Linear(width, out, dtype=torch.float64).requires_grad_(False)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
