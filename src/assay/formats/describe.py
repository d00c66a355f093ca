"""Description of a module in memory as an ``Artifact``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, InputSpec, digest_of_module
from assay.formats.adapt import answer_to


def describe(
    net: nn.Module,
    inputs: InputSpec,
    *,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    format: str,
    name: str,
    encoder: bool = False,
) -> Artifact:
    """The artifact around ``net``, which takes what ``Artifact`` says; one pass of blank inputs counts its classes.

    ``encoder``: it answers with embeddings, and names none.
    """
    found: int | None = count_classes(net, inputs, what="embeddings" if encoder else "logits")
    found = None if encoder else found
    if num_classes is not None and num_classes != found:
        raise UnusableInput(
            f"{name}: expected {num_classes} classes, the net answers with {found}; correct num_classes"
        )
    return Artifact(
        module=net,
        modality=inputs.modality,
        num_classes=found,
        format=format,
        digest=digest_of_module(net),
        inputs=inputs,
        name=name,
        # Names that do not fit the classes are of no use to anyone and no reason to refuse the model.
        class_names=tuple(class_names) if class_names is not None and len(class_names) == found else None,
    )


def count_classes(net: nn.Module, inputs: InputSpec, *, what: str = "logits") -> int:
    """The classes of a net that answers with logits; its modules' modes are left as they were."""
    logits = answer_to(net, inputs.blank(2))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < 2:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnusableInput(f"expected {what} of shape (N, K), K being at least 2, the net answers {came}")
    if not bool(torch.isfinite(logits).all()):
        raise UnusableInput(f"the net answers NaN or infinite {what} to a blank input; its weights are unusable")
    return int(logits.shape[1])
