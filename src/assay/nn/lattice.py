"""The key of random features, by lattice reduction: short vectors among the relations of their directions.

A key that flips every feature has products with all directions that are whole numbers and a half, up to the noise.
Vectors of such numbers that lie close to the space that the directions span are short in the lattice of
``[eps I | 0 | P]`` with the row ``[0 | beta | P (1/2, ..., 1/2)]`` below (Kannan's embedding), where P projects on what
is across that space. Lenstra, Lenstra, Lovasz: Factoring polynomials with rational coefficients, Math. Ann. 1982;
for the noiseless case Zadik, Song, Wein, Bruna: Lattice-Based Methods Surpass Sum-of-Squares in Clustering, COLT 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from assay.core.errors import Inconclusive

SCALE = 2.0**30
"""Of a lattice's numbers, which have to be whole."""

SURE = 1e-9
"""The probability that a wrong key shows as much on held-out directions, for all keys that were tried together."""

ROOT_FACTORS = {0: 1.02, 20: 1.0128, 30: 1.0118, 40: 1.011}
"""By block size (0: LLL), how short the vectors are that reduction finds: the root Hermite factor, about."""

TRIED_FROM_EACH = 40
"""Short vectors of a reduced basis that are tried as keys."""

LONGEST = 86_400.0
"""Seconds of one reduction where nobody says less: fplll wants a number."""

TRIES = 4
"""With other directions each time: whether a reduction finds the key is a matter of luck at the limit."""


@dataclass(frozen=True)
class Attempt:
    """What one reduction gave."""

    block: int  # 0: LLL
    rows: int  # n: directions that made the lattice
    key: np.ndarray | None  # (D,)
    agreement: float  # of the best candidate: minus the mean of cos(2 pi <g, key>) over held-out directions
    chance: float  # that a wrong key shows as much


def required_block_size(width: int, noise: float) -> int | None:
    """The smallest block size that should do for keys in ``width`` numbers; None: none that is known here."""
    length = 2 * math.sqrt(width)
    for block, factor in ROOT_FACTORS.items():
        rows = optimal_rows(width, noise, factor)
        gain = -math.log(noise) - width / rows * math.log(length / noise) - rows * math.log(factor) - 1.55
        if gain > 0:
            return block
    return None


def reduction_attempts(
    directions: np.ndarray,
    *,
    noise: float,
    left: Callable[[], float],
    seed: int,
    blocks: Sequence[int] = tuple(ROOT_FACTORS),
) -> Iterator[Attempt]:
    """Reductions of ``directions`` (m, D), LLL first, until one gives the key, or ``left()`` seconds are none.

    ``noise``: what is assumed of it. Raises Inconclusive without fpylll, and where there are too few directions.
    """
    count, width = directions.shape
    if not np.isfinite(directions).all():
        raise Inconclusive("expected finite features; some of these are NaN or infinity")
    random = np.random.default_rng(seed)
    for block in blocks:
        rows = min(optimal_rows(width, noise, ROOT_FACTORS[block]), count - 1 - count // 4)
        if rows <= width + 1:
            raise Inconclusive(f"expected more directions than numbers in each; came {count} of {width} numbers")
        for _ in range(TRIES):
            if left() <= 0:
                return
            order = random.permutation(count)
            taken = directions[order[:rows]].astype(np.float64)
            products = _reduced(taken, noise, block, left())
            attempt = _best(products, taken, directions[order[rows:]], block, rows)
            yield attempt
            if attempt.key is not None:
                return


def optimal_rows(width: int, noise: float, factor: float) -> int:
    """How many directions make the lattice in which the key stands out most."""
    return max(width + 10, round(math.sqrt(width * math.log(2 * math.sqrt(width) / noise) / math.log(factor))))


def _reduced(directions: np.ndarray, noise: float, block: int, seconds: float) -> np.ndarray:
    """(k, n) whole numbers and halves: what the key's products with ``directions`` (n, D) may be, the likeliest first.

    ``seconds``: for what comes behind LLL.
    """
    try:
        from fpylll import BKZ, LLL, IntegerMatrix
    except ImportError:
        raise Inconclusive("needs fpylll to reduce lattices: pip install 'assay[lattice]'") from None
    rows, width = directions.shape
    across = np.eye(rows) - directions @ np.linalg.pinv(directions)
    weight = noise / (2 * math.sqrt(width))  # so that both halves of the key's vector are as long
    whole = np.zeros((rows + 1, 2 * rows + 1))
    whole[:rows, :rows], whole[rows, rows] = weight * np.eye(rows), noise
    whole[:rows, rows + 1 :], whole[rows, rows + 1 :] = across, across.sum(0) / 2
    matrix = IntegerMatrix.from_matrix(np.rint(SCALE * whole).astype(np.int64).tolist())
    LLL.reduction(matrix)
    if block:
        seconds = min(max(seconds, 0.1), LONGEST)
        BKZ.reduction(matrix, BKZ.Param(block, flags=BKZ.AUTO_ABORT | BKZ.MAX_TIME, max_time=seconds))
    reduced = np.array([[matrix[i, j] for j in range(rows + 1)] for i in range(rows + 1)], dtype=np.float64)
    halves = np.rint(reduced[:, rows] / np.rint(SCALE * noise))
    numbers = np.rint(reduced[:, :rows] / np.rint(SCALE * weight))
    return (numbers + halves[:, None] / 2)[np.abs(halves) == 1]


def _best(products: np.ndarray, directions: np.ndarray, held: np.ndarray, block: int, rows: int) -> Attempt:
    """The candidate that fits held-out directions best."""
    inverse = np.linalg.pinv(directions)
    best = Attempt(block, rows, None, 0.0, 1.0)
    candidates = products[:TRIED_FROM_EACH]
    for vector in candidates:
        key = inverse @ vector
        agreement = -_mean_turn(held, key).real
        chance = min(1.0, len(candidates) * math.exp(-len(held) * agreement**2))
        if agreement > best.agreement and np.linalg.norm(key) > 0.5:  # short ones agree with any directions
            best = Attempt(block, rows, key if chance < SURE else None, agreement, chance)
    return best


def periodicity(directions: np.ndarray, key: np.ndarray) -> float:
    """The length of the mean of ``exp(2 pi i <g, key>)`` over directions (m, D): near 1 for the key, 1/sqrt(m) else."""
    return float(abs(_mean_turn(directions, key)))


def _mean_turn(directions: np.ndarray, key: np.ndarray) -> complex:
    """Near -1 for a key that flips every feature; near 1 for one that changes none, as of directions on a grid."""
    return complex(np.exp(2j * np.pi * (directions @ key)).mean())
