"""Models in memory: any ``nn.Module``, or an image classification model of transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec
from assay.formats.adapt import select_logits, to_cpu
from assay.formats.describe import changed_by_call, describe
from assay.formats.normalization import UNKNOWN_NORMALIZATION, Normalization
from assay.formats.options import refuse_output
from assay.formats.outputs import unexamined_note
from assay.formats.shape import as_shape
from assay.nn.module_state import state_of
from assay.nn.normalized import Normalized

FORMAT = "module"


def from_module(
    module: nn.Module,
    *,
    shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    output: str | None = None,
    name: str = "model",
) -> Artifact:
    """Wrap a model in memory. The weights stay unchanged; a copy is made unless they are float32 on the CPU.

    A model with several outputs is reduced to the given one, else to the only one of shape (N, K).

    Args:
        module: The model.
        shape: (C, H, W). Optional for a transformers model with the size in its config.
        num_classes: Expected number of classes. One forward pass counts them.
        mean: Mean per channel, applied in front of the model. Without it the model takes [0, 1]; for a transformers
            model the image processor's file applies, if it lies in its folder or in the hub's local cache.
        std: Standard deviation per channel.
        class_names: Names of the classes.
        output: Name of the output with the logits, or its position in a tuple.
        name: Name of the model in reports.

    Raises:
        UnusableInput: The model does not run, or its output is no (N, K) tensor.
    """
    normalization = Normalization.of(mean, std)
    size = None if shape is None else as_shape(shape, "shape")
    module, notes = to_cpu(module)
    if _is_transformers(module):
        from assay.formats.huggingface.load import from_model

        refuse_output(output, name)
        artifact = from_model(module, shape=size, normalization=normalization, class_names=class_names, name=name)
        return replace(artifact, notes=(*notes, *artifact.notes))
    if size is None:
        raise UnusableInput("shape=(C, H, W) is needed for a model in memory, for instance shape=(3, 32, 32)")
    before = state_of(module)  # the next line may be the module's first call
    given = module
    module, unused = select_logits(module, size, output)
    notes += unexamined_note(unused)
    wrapped = module if normalization is None else normalization.around(module, size[0])
    artifact = describe(wrapped, ImageSpec(size), class_names=class_names, format=FORMAT, name=name)
    if num_classes not in (None, artifact.num_classes):
        raise UnusableInput(
            f"{name}: expected {num_classes} classes, the model outputs {artifact.num_classes}. "
            "Fix: correct num_classes."
        )
    changed = (*changed_by_call(given, before), *artifact.changed_by_first_call)
    unknown = normalization is None and not isinstance(module, Normalized)
    return replace(
        artifact,
        notes=(*artifact.notes, *notes, *((UNKNOWN_NORMALIZATION,) if unknown else ())),
        normalization_unknown=unknown,
        unexamined_outputs=unused,
        changed_by_first_call=tuple(dict.fromkeys(changed)),
    )


def _is_transformers(module: nn.Module) -> bool:
    transformers = sys.modules.get("transformers")  # a transformers model cannot exist before this import
    return transformers is not None and isinstance(module, transformers.PreTrainedModel)
