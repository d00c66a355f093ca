"""What a found trigger does in a model as it is compressed further and further: where a backdoor wakes, or goes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from assay.core.dataset import Split
from assay.core.model import Artifact
from assay.core.result import SweepPoint
from assay.detectors.base import Budget
from assay.detectors.encoder.cluster_probe import in_form
from assay.nn.inference import predict

SERIES = {
    "bits of the weights": {"full": "32", "int8": "8", **{f"int{bits}": str(bits) for bits in (6, 5, 4, 3)}},
    "weights pruned": {"full": "0 %", **{f"prune-{percent}": f"{percent} %" for percent in (20, 40, 50, 60, 70, 80)}},
    "filters pruned": {"full": "0 %", **{f"filters-{percent}": f"{percent} %" for percent in (10, 20, 30, 40, 50)}},
}
"""The forms, and what each step is called."""

AUDITED = "forms of this audit"

PICTURES = 256


def waking(
    artifact: Artifact,
    clean: Split,
    trigger: Callable[[Tensor], Tensor],
    target: int,
    names: tuple[str, ...],
    *,
    seed: int,
    budget: Budget,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[SweepPoint, ...]:
    """What ``trigger`` does in each form of ``artifact`` that can be made while the budget lasts.

    ``names``: the forms of the audit, which come first. Success is counted over pictures that the full model does not
    give ``target`` anyway.
    """
    x = clean.x[:PICTURES]
    before = predict(artifact.module, x)
    victims = x[before != target]
    if not len(victims):
        return ()
    triggered = trigger(victims)
    every = {AUDITED: {name: name for name in names}, **SERIES}
    forms = [(kind, name, step) for kind, steps in every.items() for name, step in steps.items()]
    points = []
    for index, (kind, name, step) in enumerate(forms):
        progress(index / len(forms))
        if budget.left() <= 0:
            break
        try:
            net = in_form(name, artifact, clean, seed=seed).module
            agreement, success = predict(net, x) == before, predict(net, triggered) == target
        except Exception:  # a stranger's net can fail in any way: the chart has a point less
            continue
        points.append(SweepPoint(kind, step, float(agreement.float().mean()), float(success.float().mean()), target))
    return tuple(points)
