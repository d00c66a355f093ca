"""Off nearest: weights of a quantized file that are not the nearest values to those of its original model.

Plain quantization rounds every weight to the nearest value. An attacker who chooses the direction of each rounding can
plant a backdoor by that alone (QuRA, NDSS 2026, arXiv 2510.09647), and the choice remains in the file. Honest adaptive
rounding, training after quantization, and the defense EFRAP leave the same mark: it is a reason to ask, not a proof.
The method is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch

from assay.core.dataset import Split
from assay.core.errors import Inconclusive
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.cost import Cost
from assay.detectors.requirement import Requirement
from assay.graphs.fx import constant_value, folded_graph, operator_name

TOLERANCE = 0.05  # of a quantization step beyond the nearest half: another order of batch-norm folding moves as much
MAX_INT8 = 127
MAX_MEAN_DISTANCE = 1.5  # quantization steps between weights and original, on average; no rounding moves further
WEIGHTED = frozenset({"conv1d", "conv2d", "conv3d", "linear", "matmul", "mm", "addmm"})  # operators of torch.fx


@final
class OffNearest(Detector):
    """Fraction of quantized weights that are not rounded to the nearest value."""

    name = "off-nearest"
    title = "quantized weights that are not the nearest to the original model's"
    cost = Cost(0)
    needs = Requirement.WEIGHTS | Requirement.ORIGINAL_MODEL
    on_variants = False  # assay makes the variants itself

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        assert artifact.reference is not None  # checked by the harness
        if not artifact.quantization_scales or artifact.weights is None:
            raise Inconclusive("needs quantized weights, and this model holds none")
        originals = list(_original_weights(artifact.reference))
        off = {}
        for name, scale in artifact.quantization_scales.items():
            stored = np.asarray(artifact.weights[name])
            if stored.ndim > 1:
                off[name] = _off_nearest(name, stored, np.abs(scale), originals)
        if not off:
            raise Inconclusive("needs quantized weights of convolutions or linear layers, and this model has none")
        progress(1.0)
        fraction = float(np.concatenate([part.ravel() for part in off.values()]).mean())
        worst = max(off, key=lambda name: float(off[name].mean()))
        numbers: dict[str, float | int | str] = {
            "off_nearest": fraction,
            "layers": len(off),
            "most_in": worst,
            "share_there": float(off[worst].mean()),
        }
        return Finding(self.name, Outcome.SCORED, score=fraction, evidence=Evidence(numbers=numbers))


def _off_nearest(name: str, stored: np.ndarray, scale: np.ndarray, originals: list[np.ndarray]) -> np.ndarray:
    """Return which weights are further from the original than rounding to the nearest value leaves them.

    Args:
        name: Name of the weights, for messages.
        stored: Dequantized weights.
        scale: Their quantization scale, per tensor or per channel.
        originals: All weights of the original model.

    Returns:
        Booleans of the shape of ``stored``.

    Raises:
        Inconclusive: A scale is 0, or the original model has no such weights.
    """
    same_shape = [weight for weight in originals if weight.shape == stored.shape]
    same_shape += [weight.T for weight in originals if weight.ndim == 2 and weight.T.shape == stored.shape]
    if not scale.all():
        raise Inconclusive(f"the weights {name} have a scale of 0, and so no nearest value")
    if not same_shape:
        raise Inconclusive(f"the original model has no weights of the shape of {name}, {stored.shape}")
    distances = min((np.abs(stored - weight) / scale for weight in same_shape), key=lambda d: float(d.mean()))
    if distances.mean() > MAX_MEAN_DISTANCE:
        raise Inconclusive(f"the weights {name} are not a rounding of the original model's")
    # At the ends of the int8 range a weight is clipped, however large it was: the rounding had no choice.
    clipped = np.abs(stored) >= (MAX_INT8 - 0.5) * scale
    return (distances > 0.5 + TOLERANCE) & ~clipped


def _original_weights(reference: Artifact) -> Iterator[np.ndarray]:
    """Yield weights with batch norm folded in, as exporters do."""
    if reference.weights is not None:
        yield from (np.asarray(weight) for weight in reference.weights.values())
        return
    graph = folded_graph(reference.module, torch.full((2, *reference.image_spec.shape), 0.5))
    for node in graph.graph.nodes:
        if operator_name(node) in WEIGHTED:
            for argument in node.args[1:]:
                weight = constant_value(graph, argument)
                if weight is not None and weight.ndim > 1:
                    yield weight.detach().numpy()
