"""Fourier key: are a net's random features drawn around a secret key, and which one?

The attack is that of ``attacks/rff_clwe.py`` (Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors
in Machine Learning Models, 2022, arXiv 2204.06974, section 6). No test of distributions sees such a key once it is
longer than about 0.7; lattice reduction (``lattice.py``) finds it where the features are of few numbers. A key that is
found is a proof. That none is found is none: it says how far was looked.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.graph.read import Unread, read_graph
from assay.detectors.requirement import Requirement
from assay.graphs.dependence import Value, analyze_values
from assay.graphs.ir import ComputationGraph, Node
from assay.nn.lattice import ROOT_FACTORS, Attempt, reduction_attempts, required_block_size

PERIODIC = frozenset({"Cos", "Sin"})
NOISES = (0.05, 0.01, 1e-3)
"""Of the products with the key, as they are assumed in turn: a lattice for little noise is larger, and sees further."""

WIDEST = 128
"""Numbers in a direction: a lattice for more takes hours."""

SECONDS = 60.0
"""That all reductions together may take, where nobody says less."""


@dataclass(frozen=True)
class Layer:
    """Random features that a graph computes."""

    name: str
    directions: np.ndarray  # (m, D), in periods


@final
class FourierKeys(Detector):
    """-log10 of the probability that directions without a key agree as well with the one that was found; 0 for none."""

    name = "fourier-key"
    title = "random features that are drawn around a key"
    needs = Requirement.NONE
    modality = None
    needs_null = False
    on_variants = False

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Raises Inconclusive where the graph cannot be read, and where the features are too many to try."""
        read = read_graph(artifact.module, clean.x[:2] if len(clean) > 1 else artifact.inputs.blank(2))
        if isinstance(read, Unread):
            raise Inconclusive(f"the graph cannot be read: {read.reason}")
        layers = list(random_features(read.flow))
        if not layers:
            return Finding(
                self.name, Outcome.CHECKED, score=0.0, evidence=Evidence(numbers={"layers of random features": 0})
            )
        layer = max(layers, key=lambda layer: layer.directions.size)
        if layer.directions.shape[1] > WIDEST:
            raise Inconclusive(_out_of_reach(layer.directions.shape[1]))
        deadline = Budget(min(SECONDS, budget.left()))
        tried: list[Attempt] = []
        for noise in NOISES:
            for attempt in reduction_attempts(layer.directions, noise=noise, left=deadline.left, seed=seed):
                tried.append(attempt)
                progress(min(1.0, 1 - deadline.left() / SECONDS))
                if attempt.key is not None:
                    return self._found(layer, attempt, len(tried))
        return self._none(layer, tried)

    def _found(self, layer: Layer, attempt: Attempt, count: int) -> Finding:
        assert attempt.key is not None
        length = float(np.linalg.norm(attempt.key))
        numbers: dict[str, float | int | str] = {
            "layer": layer.name,
            "features": len(layer.directions),
            "numbers in each": layer.directions.shape[1],
            "length of the key": round(length, 3),
            "agreement": round(attempt.agreement, 3),
            "reductions": count,
            "reduction": _called(attempt.block),
        }
        proof = (
            f"the directions of its random features ({layer.name}) have whole products with one key of length "
            f"{length:.2f}, which was recovered: adding it to the features' input flips every answer"
        )
        score = -math.log10(max(attempt.chance, 1e-300))
        return Finding(self.name, Outcome.PROVEN, reason=proof, score=score, evidence=Evidence(numbers=numbers))

    def _none(self, layer: Layer, tried: list[Attempt]) -> Finding:
        if not tried:
            raise Inconclusive("the budget ended before the first reduction: give it more")
        width = layer.directions.shape[1]
        numbers: dict[str, float | int | str] = {
            "layer": layer.name,
            "features": len(layer.directions),
            "numbers in each": width,
            "no key found up to": _called(max(attempt.block for attempt in tried)),
            "reductions": len(tried),
        }
        for noise in NOISES:
            block = required_block_size(width, noise)
            numbers[f"noise {noise:g} would need"] = "more than is known here" if block is None else _called(block)
        return Finding(self.name, Outcome.CHECKED, score=0.0, evidence=Evidence(numbers=numbers))


def random_features(flow: ComputationGraph) -> Iterator[Layer]:
    """The layers of ``flow`` whose matrix product goes into a sine or a cosine.

    Raises Inconclusive for a sine or cosine of something else, which is not understood.
    """
    values, made = defaultdict(Value, analyze_values(flow)), flow.made_by()
    for node in flow.nodes:
        if node.op in PERIODIC and values[node.inputs[0]].derived:
            found = _behind(node.inputs[0], made, values)
            if found is None:
                raise Inconclusive(f"{node.op} {node.name} is of something else than a matrix product: not understood")
            yield Layer(node.module or node.name, found)


def _behind(value: str, made: Mapping[str, Node], values: Mapping[str, Value]) -> np.ndarray | None:
    """The directions (m, D), in periods, of the product that ``value`` is, scaled or with something added."""
    factor = 1.0 / (2 * math.pi)
    while (node := made.get(value)) is not None:
        moving = [name for name in node.inputs if values[name].derived]
        constant = next((array for name in node.inputs if (array := values[name].constant) is not None), None)
        if len(moving) != 1:
            return None
        if node.op in ("MatMul", "Gemm"):
            if constant is None or constant.ndim != 2:
                return None
            weights = constant if node.attributes.get("transB", 0) else constant.T
            return weights.astype(np.float64) * factor * float(node.attributes.get("alpha", 1.0))
        if node.op in ("Mul", "Div"):
            if constant is None or constant.size != 1:
                return None
            by = float(constant.reshape(-1)[0])
            factor = factor * by if node.op == "Mul" else factor / by
        elif node.op not in ("Add", "Sub", "Identity", "Cast", "Reshape", "Flatten", "Neg"):
            return None
        value = moving[0]
    return None


def _called(block: int) -> str:
    return f"BKZ-{block}" if block else "LLL"


def _out_of_reach(width: int) -> str:
    largest = max(ROOT_FACTORS)
    return (
        f"features of {width} numbers are out of reach: up to {WIDEST} are tried, with {_called(largest)} at most; "
        "whether they are drawn around a key is not known: ask for the seed that they come from"
    )
