"""A net that is already in memory: any ``nn.Module``, or an image classification model of transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec, Inputs, digest_of_module
from assay.formats.adapt import answer_to, on_cpu, with_logits
from assay.formats.normalization import AS_IT_IS, Normalization
from assay.formats.shape import as_shape
from assay.nn.architectures import Normalized

FORMAT = "module"


def from_module(
    net: nn.Module,
    *,
    shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "model",
) -> Artifact:
    """Wraps a net in memory; its weights are not changed, and copied only where they are not float32 on the CPU.

    ``shape`` is (C, H, W), needed unless the net is a transformers model whose config says it. ``mean`` and ``std`` are
    put in front of the net; without them it takes [0, 1] as it is (a transformers model: what its image processor's
    file says, where that lies in its folder or in the hub's local cache). ``num_classes`` is found by one forward pass.
    Of a net that answers with several things the output ``logits`` is taken, else the only one of shape (N, K).
    """
    normalization = Normalization.of(mean, std)
    size = None if shape is None else as_shape(shape, "shape")
    net, notes = on_cpu(net)
    if _is_transformers(net):
        from assay.formats.huggingface.load import from_model

        artifact = from_model(net, shape=size, normalization=normalization, class_names=class_names, name=name)
        return replace(artifact, notes=(*notes, *artifact.notes))
    if size is None:
        raise UnusableInput("shape=(C, H, W) is needed for a net in memory, for instance shape=(3, 32, 32)")
    net = with_logits(net, size)
    wrapped = net if normalization is None else normalization.around(net, size[0])
    artifact = describe(
        wrapped, ImageSpec(size), num_classes=num_classes, class_names=class_names, format=FORMAT, name=name
    )
    assumed = normalization is None and not isinstance(net, Normalized)
    return replace(artifact, notes=(*notes, AS_IT_IS) if assumed else notes, range_assumed=assumed)


def describe(
    net: nn.Module,
    inputs: Inputs,
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
        net=net,
        modality=inputs.modality,
        num_classes=found,
        format=format,
        digest=digest_of_module(net),
        inputs=inputs,
        name=name,
        # Names that do not fit the classes are of no use to anyone and no reason to refuse the model.
        class_names=tuple(class_names) if class_names is not None and len(class_names) == found else None,
    )


def count_classes(net: nn.Module, inputs: Inputs, *, what: str = "logits") -> int:
    """The classes of a net that answers with logits; its modules' modes are left as they were."""
    logits = answer_to(net, inputs.blank(2))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < 2:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnusableInput(f"expected {what} of shape (N, K), K being at least 2, the net answers {came}")
    if not bool(torch.isfinite(logits).all()):
        raise UnusableInput(f"the net answers NaN or infinite {what} to a blank input; its weights are unusable")
    return int(logits.shape[1])


def _is_transformers(net: nn.Module) -> bool:
    transformers = sys.modules.get("transformers")  # a net of transformers cannot exist before its import
    return transformers is not None and isinstance(net, transformers.PreTrainedModel)
