"""Off nearest: weights of a quantized file that are not the nearest values to those of its full-precision model.

Plain quantization rounds every weight to the nearest value. Whoever chooses which way each one is rounded can plant a
backdoor by that alone (QuRA, NDSS 2026, arXiv 2510.09647), and leaves the choice in the file. So do honest adaptive
rounding, weights trained after quantization, and EFRAP, which defends: it is a reason to ask, not a proof. Our own.
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
from assay.detectors.requirement import Requirement
from assay.graphs.fx import constant_value, folded_graph, operator_name

SLACK = 0.05
"""Of a step, beyond the half that is nearest: what folding batch norm in another order moves."""

LAST = 127
"""The end of the range of int8."""

FAR = 1.5
"""Steps from the reference, on average: further away than any rounding leaves a weight."""

WEIGHTED = frozenset({"conv1d", "conv2d", "conv3d", "linear", "matmul", "mm", "addmm"})


@final
class OffNearest(Detector):
    """The share of quantized weights that were not rounded to the nearest value."""

    name = "off-nearest"
    title = "quantized weights that are not the nearest to the full model's"
    needs = Requirement.WEIGHTS | Requirement.ORIGINAL_MODEL
    on_variants = False  # assay made those itself

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        assert artifact.reference is not None
        if not artifact.quantization_scales or artifact.weights is None:
            raise Inconclusive("needs quantized weights, and this model holds none")
        full = list(_full_weights(artifact.reference))
        off = {}
        for name, step in artifact.quantization_scales.items():
            stored = np.asarray(artifact.weights[name])
            if stored.ndim > 1:
                off[name] = _off(name, stored, np.abs(step), full)
        if not off:
            raise Inconclusive("needs quantized weights of convolutions or linear layers, and this model has none")
        progress(1.0)
        share = float(np.concatenate([part.ravel() for part in off.values()]).mean())
        worst = max(off, key=lambda name: float(off[name].mean()))
        numbers: dict[str, float | int | str] = {
            "off_nearest": share,
            "layers": len(off),
            "most_in": worst,
            "share_there": float(off[worst].mean()),
        }
        return Finding(self.name, Outcome.SCORED, score=share, evidence=Evidence(numbers=numbers))


def _off(name: str, stored: np.ndarray, step: np.ndarray, full: list[np.ndarray]) -> np.ndarray:
    """Which weights (of the shape of ``stored``) lie further from the full model's than to-nearest leaves them."""
    alike = [weight for weight in full if weight.shape == stored.shape]
    alike += [weight.T for weight in full if weight.ndim == 2 and weight.T.shape == stored.shape]
    if not step.all():
        raise Inconclusive(f"the weights {name} have a scale of 0, and so no nearest value")
    if not alike:
        raise Inconclusive(f"the full-precision model has no weights of the shape of {name}, {stored.shape}")
    distances = min((np.abs(stored - weight) / step for weight in alike), key=lambda steps: float(steps.mean()))
    if distances.mean() > FAR:
        raise Inconclusive(f"the weights {name} are not those of the full-precision model, rounded in whatever way")
    # At the ends of the range a weight is cut off, however far it was: no choice was made there.
    cut = np.abs(stored) >= (LAST - 0.5) * step
    return (distances > 0.5 + SLACK) & ~cut


def _full_weights(reference: Artifact) -> Iterator[np.ndarray]:
    """Weights with batch norm folded in, as exporters fold it."""
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
