"""A net that is already in memory: any ``nn.Module``, or an image classification model of transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec
from assay.formats.adapt import on_cpu, with_logits
from assay.formats.describe import describe
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
    return replace(artifact, notes=(*notes, AS_IT_IS) if assumed else notes, normalization_unknown=assumed)


def _is_transformers(net: nn.Module) -> bool:
    transformers = sys.modules.get("transformers")  # a net of transformers cannot exist before its import
    return transformers is not None and isinstance(net, transformers.PreTrainedModel)
