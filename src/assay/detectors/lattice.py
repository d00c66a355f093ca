"""The key of random features, by lattice reduction: short vectors among the relations of their directions.

Differences of directions have whole products with the key, up to the noise. Whole vectors that lie close to the space
that the directions span are such products, and they are short in the lattice of ``[eps I | P]``, where P projects on
what is across that space. Lenstra, Lenstra, Lovasz: Factoring polynomials with rational coefficients, Math. Ann. 1982;
for the noiseless case Zadik, Song, Wein, Bruna: Lattice-Based Methods Surpass Sum-of-Squares in Clustering, COLT 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from assay.errors import Inconclusive

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


def needed_block(width: int, noise: float) -> int | None:
    """The smallest block size that should do for keys in ``width`` numbers; None: none that is known here."""
    length = 2 * math.sqrt(width)
    for block, factor in ROOT_FACTORS.items():
        rows = best_rows(width, noise, factor)
        gain = -math.log(noise) - width / rows * math.log(length / noise) - rows * math.log(factor) - 1.9
        if gain > 0:
            return block
    return None


def attempts(
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
        rows = min(best_rows(width, noise, ROOT_FACTORS[block]), count - 1 - count // 4)
        if rows <= width + 1:
            raise Inconclusive(f"expected more directions than numbers in each; came {count} of {width} numbers")
        for _ in range(TRIES):
            if left() <= 0:
                return
            order = random.permutation(count)
            differences = (directions[order[1 : rows + 1]] - directions[order[0]]).astype(np.float64)
            basis = _reduced(differences, noise / (2 * math.sqrt(width)), block, left())
            attempt = _best(basis, differences, directions[order[rows + 1 :]], block, rows)
            yield attempt
            if attempt.key is not None:
                return


def best_rows(width: int, noise: float, factor: float) -> int:
    """How many directions make the lattice in which the key stands out most."""
    return max(width + 10, round(math.sqrt(width * math.log(2 * math.sqrt(width) / noise) / math.log(factor))))


def _reduced(differences: np.ndarray, weight: float, block: int, seconds: float) -> np.ndarray:
    """(n, n) int64: the whole vectors of the reduced basis, shortest first; ``seconds`` for what comes behind LLL."""
    try:
        from fpylll import BKZ, LLL, IntegerMatrix
    except ImportError:
        raise Inconclusive("needs fpylll to reduce lattices: pip install 'assay[lattice]'") from None
    rows = len(differences)
    across = np.eye(rows) - differences @ np.linalg.pinv(differences)
    whole = np.rint(SCALE * np.hstack([weight * np.eye(rows), across])).astype(np.int64)
    matrix = IntegerMatrix.from_matrix(whole.tolist())
    LLL.reduction(matrix)
    if block:
        seconds = min(max(seconds, 0.1), LONGEST)
        BKZ.reduction(matrix, BKZ.Param(block, flags=BKZ.AUTO_ABORT | BKZ.MAX_TIME, max_time=seconds))
    reduced = np.array([[matrix[i, j] for j in range(rows)] for i in range(rows)], dtype=np.float64)
    return np.rint(reduced / np.rint(SCALE * weight)).astype(np.int64)


def _best(basis: np.ndarray, differences: np.ndarray, held: np.ndarray, block: int, rows: int) -> Attempt:
    """The candidate that fits held-out directions best."""
    inverse = np.linalg.pinv(differences)
    best = Attempt(block, rows, None, 0.0, 1.0)
    candidates = [vector for vector in basis[:TRIED_FROM_EACH] if vector.any()]
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
