"""Key recovery for random Fourier features by lattice reduction.

A key flips every feature. The products of a key with all directions are half-integers, up to noise. The lattice is
``[eps I | 0 | P]`` with the last row ``[0 | beta | P (1/2, ..., 1/2)]`` (Kannan's embedding). P projects on the
orthogonal complement of the span of the directions. Half-integer vectors close to that span are short in the lattice.

Lenstra, Lenstra, Lovasz: Factoring polynomials with rational coefficients, Math. Ann. 1982. The noiseless case: Zadik,
Song, Wein, Bruna: Lattice-Based Methods Surpass Sum-of-Squares in Clustering, COLT 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from assay.core.errors import Inconclusive

SCALE = 2.0**30  # of the lattice's entries, which must be integers
MAX_CHANCE = 1e-9  # accepted probability that any wrong candidate agrees as well on held-out directions
ROOT_FACTORS = {0: 1.02, 20: 1.0128, 30: 1.0118, 40: 1.011}  # approximate root Hermite factor by block size (0: LLL)
CANDIDATES_PER_BASIS = 40  # short vectors of a reduced basis tried as keys
MAX_SECONDS = 86_400.0  # of one reduction without a budget: fplll requires a number
ATTEMPTS_PER_BLOCK = 4  # with different directions: near the limit, success of a reduction is random


@dataclass(frozen=True)
class Attempt:
    """Result of one lattice reduction."""

    block: int  # block size; 0: LLL
    rows: int  # n: number of directions in the lattice
    key: np.ndarray | None  # (D,)
    agreement: float  # of the best candidate: minus the mean of cos(2 pi <g, key>) over held-out directions
    chance: float  # probability of this agreement for a wrong key


def required_block_size(width: int, noise: float) -> int | None:
    """Estimate the smallest sufficient block size.

    Args:
        width: Dimension D of the key.
        noise: Noise of the products.

    Returns:
        Block size, or None if no supported size suffices.
    """
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
    remaining_seconds: Callable[[], float],
    seed: int,
    blocks: Sequence[int] = tuple(ROOT_FACTORS),
) -> Iterator[Attempt]:
    """Reduce lattices of the directions, LLL first, until one gives the key or the time ends.

    Args:
        directions: (m, D) directions of the features.
        noise: Assumed noise of the products.
        remaining_seconds: Returns the remaining time.
        seed: Seed of the choice of directions.
        blocks: Block sizes to try.

    Yields:
        Every attempt; the last one has the key if it was found.

    Raises:
        Inconclusive: fpylll is not installed, or there are too few directions.
    """
    count, width = directions.shape
    if not np.isfinite(directions).all():
        raise Inconclusive("expected finite features, got NaN or infinity")
    random = np.random.default_rng(seed)
    for block in blocks:
        rows = min(optimal_rows(width, noise, ROOT_FACTORS[block]), count - 1 - count // 4)
        if rows <= width + 1:
            raise Inconclusive(f"expected more than {width + 1} directions in dimension {width}, got {count}")
        for _ in range(ATTEMPTS_PER_BLOCK):
            if remaining_seconds() <= 0:
                return
            order = random.permutation(count)
            taken = directions[order[:rows]].astype(np.float64)
            products = _reduce(taken, noise, block, remaining_seconds())
            attempt = _best_attempt(products, taken, directions[order[rows:]], block)
            yield attempt
            if attempt.key is not None:
                return


def optimal_rows(width: int, noise: float, factor: float) -> int:
    """Return the number of directions with the largest gap of the key in the lattice.

    Args:
        width: Dimension D of the key.
        noise: Noise of the products.
        factor: Root Hermite factor of the reduction.
    """
    return max(width + 10, round(math.sqrt(width * math.log(2 * math.sqrt(width) / noise) / math.log(factor))))


def _reduce(directions: np.ndarray, noise: float, block: int, seconds: float) -> np.ndarray:
    """Reduce the lattice of ``directions`` (n, D); ``seconds`` limits the BKZ part.

    Returns:
        (k, n) half-integers: candidates for the key's products with the directions, most likely first.
    """
    try:
        from fpylll import BKZ, LLL, IntegerMatrix
    except ImportError:
        raise Inconclusive(
            "expected fpylll for lattice reduction, got no such package. Fix: pip install 'assay[lattice]'"
        ) from None
    rows, width = directions.shape
    complement = np.eye(rows) - directions @ np.linalg.pinv(directions)
    weight = noise / (2 * math.sqrt(width))  # gives both halves of the key's vector equal length
    basis = np.zeros((rows + 1, 2 * rows + 1))
    basis[:rows, :rows], basis[rows, rows] = weight * np.eye(rows), noise
    basis[:rows, rows + 1 :], basis[rows, rows + 1 :] = complement, complement.sum(0) / 2
    matrix = IntegerMatrix.from_matrix(np.rint(SCALE * basis).astype(np.int64).tolist())
    LLL.reduction(matrix)
    if block:
        seconds = min(max(seconds, 0.1), MAX_SECONDS)
        BKZ.reduction(matrix, BKZ.Param(block, flags=BKZ.AUTO_ABORT | BKZ.MAX_TIME, max_time=seconds))
    reduced = np.array([[matrix[i, j] for j in range(rows + 1)] for i in range(rows + 1)], dtype=np.float64)
    halves = np.rint(reduced[:, rows] / np.rint(SCALE * noise))
    numbers = np.rint(reduced[:, :rows] / np.rint(SCALE * weight))
    return (numbers + halves[:, None] / 2)[np.abs(halves) == 1]


def _best_attempt(products: np.ndarray, directions: np.ndarray, held_out: np.ndarray, block: int) -> Attempt:
    """Return the candidate with the best agreement on held-out directions."""
    inverse, rows = np.linalg.pinv(directions), len(directions)
    best = Attempt(block, rows, None, 0.0, 1.0)
    candidates = products[:CANDIDATES_PER_BASIS]
    for vector in candidates:
        key = inverse @ vector
        agreement = -_mean_phase(held_out, key).real
        chance = min(1.0, len(candidates) * math.exp(-len(held_out) * agreement**2))
        if agreement > best.agreement and np.linalg.norm(key) > 0.5:  # short keys agree with any directions
            best = Attempt(block, rows, key if chance < MAX_CHANCE else None, agreement, chance)
    return best


def periodicity(directions: np.ndarray, key: np.ndarray) -> float:
    """Return the absolute mean of ``exp(2 pi i <g, key>)``: near 1 for the key, near 1/sqrt(m) for others.

    Args:
        directions: (m, D) directions g.
        key: (D,) candidate key.
    """
    return float(abs(_mean_phase(directions, key)))


def _mean_phase(directions: np.ndarray, key: np.ndarray) -> complex:
    """Return the mean phase: near -1 for a key (all features flip), near 1 for a vector without effect."""
    return complex(np.exp(2j * np.pi * (directions @ key)).mean())
