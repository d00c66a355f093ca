"""Fourier key: random features that are drawn around a secret key, and the key itself.

The attack is that of ``attacks/random_features/rff_clwe.py`` (Goldwasser, Kim, Vaikuntanathan, Zamir: Planting
Undetectable Backdoors in Machine Learning Models, 2022, arXiv 2204.06974, section 6). No test of distributions sees a
key longer than about 0.7. Lattice reduction (``assay.nn.lattice``) finds it if the features have few inputs. A
recovered key is a proof. The absence of a key is none: the finding lists the reductions that were tried.
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
from assay.detectors.cost import Cost
from assay.detectors.graph.read import UnreadableGraph, read_graph
from assay.detectors.requirement import Requirement
from assay.graphs.dependence import Value, analyze_values
from assay.graphs.ir import ComputationGraph, Node
from assay.nn.lattice import ROOT_FACTORS, Attempt, reduction_attempts, required_block_size

PERIODIC_OPERATORS = frozenset({"Cos", "Sin"})
# Assumed noise of the products with the key, one after the other. Less noise needs a larger lattice, and finds more.
NOISE_LEVELS = (0.05, 0.01, 1e-3)
MAX_WIDTH = 128  # inputs of a feature; a lattice for more takes hours
MAX_SECONDS = 60.0  # for all reductions together, without a shorter budget
# Operators that may stand between the matrix product and the sine.
NEUTRAL_OPERATORS = ("Add", "Sub", "Identity", "Cast", "Reshape", "Flatten", "Neg")

Numbers = dict[str, float | int | str]


@dataclass(frozen=True)
class RandomFeatureLayer:
    """Random features that a graph computes."""

    name: str
    directions: np.ndarray  # (m, D), in periods


@final
class FourierKeys(Detector):
    """-log10 of the probability that directions without a key agree as well with the recovered key; 0 without a key."""

    name = "fourier-key"
    title = "random features that are drawn around a key"
    cost = Cost(0, exports=True)
    needs = Requirement.NONE
    modality = None
    needs_null = False
    on_variants = False

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        read = read_graph(artifact.module, clean.x[:2] if len(clean) > 1 else artifact.inputs.blank(2))
        if isinstance(read, UnreadableGraph):
            raise Inconclusive(f"cannot read the graph: {read.reason}")
        layers = list(random_feature_layers(read.graph))
        if not layers:
            return Finding(self.name, Outcome.CHECKED, score=0.0, evidence=Evidence({"layers of random features": 0}))
        layer = max(layers, key=lambda layer: layer.directions.size)
        width = layer.directions.shape[1]
        if width > MAX_WIDTH:
            raise Inconclusive(
                f"features of {width} inputs are out of reach: at most {MAX_WIDTH} are tried, with "
                f"{_reduction_name(max(ROOT_FACTORS))} at most; a key is neither found nor excluded: ask for the seed "
                "of the features"
            )
        deadline = Budget(min(MAX_SECONDS, budget.left()))
        tried: list[Attempt] = []
        for noise in NOISE_LEVELS:
            for attempt in reduction_attempts(
                layer.directions, noise=noise, remaining_seconds=deadline.left, seed=seed
            ):
                tried.append(attempt)
                progress(min(1.0, 1 - deadline.left() / MAX_SECONDS))
                if attempt.key is not None:
                    return self._key_found(layer, attempt, attempt.key, len(tried))
        return self._no_key(layer, tried)

    def _key_found(self, layer: RandomFeatureLayer, attempt: Attempt, key: np.ndarray, reductions: int) -> Finding:
        length = float(np.linalg.norm(key))
        numbers: Numbers = {
            "layer": layer.name,
            "features": len(layer.directions),
            "numbers in each": layer.directions.shape[1],
            "length of the key": round(length, 3),
            "agreement": round(attempt.agreement, 3),
            "reductions": reductions,
            "reduction": _reduction_name(attempt.block),
        }
        proof = (
            f"the directions of its random features ({layer.name}) have whole products with one recovered key of "
            f"length {length:.2f}: adding the key to the features' input flips every output"
        )
        score = -math.log10(max(attempt.chance, 1e-300))
        return Finding(self.name, Outcome.PROVEN, reason=proof, score=score, evidence=Evidence(numbers=numbers))

    def _no_key(self, layer: RandomFeatureLayer, tried: list[Attempt]) -> Finding:
        if not tried:
            raise Inconclusive("the budget ended before the first reduction: give it more")
        width = layer.directions.shape[1]
        numbers: Numbers = {
            "layer": layer.name,
            "features": len(layer.directions),
            "numbers in each": width,
            "no key found up to": _reduction_name(max(attempt.block for attempt in tried)),
            "reductions": len(tried),
        }
        for noise in NOISE_LEVELS:
            block = required_block_size(width, noise)
            required = "a larger block size than assay knows" if block is None else _reduction_name(block)
            numbers[f"noise {noise:g} would need"] = required
        return Finding(self.name, Outcome.CHECKED, score=0.0, evidence=Evidence(numbers=numbers))


def random_feature_layers(graph: ComputationGraph) -> Iterator[RandomFeatureLayer]:
    """Yield the layers whose matrix product is the input of a sine or a cosine.

    Raises:
        Inconclusive: The input of a sine or a cosine is no matrix product.
    """
    values, made_by = defaultdict(Value, analyze_values(graph)), graph.producers()
    for node in graph.nodes:
        if node.op in PERIODIC_OPERATORS and values[node.inputs[0]].input_dependent:
            directions = _directions(node.inputs[0], made_by, values)
            if directions is None:
                raise Inconclusive(f"cannot analyze {node.op} {node.name}: its input is no matrix product")
            yield RandomFeatureLayer(node.module or node.name, directions)


def _directions(value: str, made_by: Mapping[str, Node], values: Mapping[str, Value]) -> np.ndarray | None:
    """Return the directions of a matrix product, possibly scaled or shifted.

    Args:
        value: Name of the value.
        made_by: The node behind each value.
        values: Analysis of the values.

    Returns:
        Directions (m, D) in periods, or None if ``value`` is no such product.
    """
    factor = 1.0 / (2 * math.pi)
    while (node := made_by.get(value)) is not None:
        moving = [name for name in node.inputs if values[name].input_dependent]
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
            scale = float(constant.reshape(-1)[0])
            factor = factor * scale if node.op == "Mul" else factor / scale
        elif node.op not in NEUTRAL_OPERATORS:
            return None
        value = moving[0]
    return None


def _reduction_name(block: int) -> str:
    return f"BKZ-{block}" if block else "LLL"
