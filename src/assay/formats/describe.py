"""Description of a module in memory as an ``Artifact``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec, InputSpec, digest_of_module
from assay.formats.adapt import output_of
from assay.nn.module_state import changed_names, runs_foreign_code, state_of


def describe(
    module: nn.Module,
    inputs: InputSpec,
    *,
    format: str,
    name: str,
    class_names: Sequence[str] | None = None,
    encoder: bool = False,
) -> Artifact:
    """Return the artifact around a module. One pass of blank inputs counts its classes.

    Args:
        module: The module, in the convention of ``Artifact``.
        inputs: Specification of its inputs.
        format: Format of the model, as in ``Artifact``.
        name: Name of the model.
        class_names: Names of the classes. A list of another length than the classes is not used, with a note.
        encoder: The module outputs embeddings and has no classes.

    Raises:
        UnusableInput: The output is no finite (N, K) tensor.
    """
    before = state_of(module)
    width = count_outputs(module, inputs, what="embeddings" if encoder else "logits")
    num_classes = None if encoder else width
    # Names that do not fit the classes are no reason to refuse the model.
    fitting = tuple(class_names) if class_names is not None and len(class_names) == num_classes else None
    unused = class_names is not None and fitting is None and not encoder
    note = f"the {len(class_names or ())} class names in its files are not used: the model has {num_classes} classes"
    return Artifact(
        module=module,
        modality=inputs.modality,
        num_classes=num_classes,
        format=format,
        digest=digest_of_module(module),
        inputs=inputs,
        name=name,
        class_names=fitting,
        notes=(note,) if unused else (),
        changed_by_first_call=changed_by_call(module, before),
    )


def changed_by_call(module: nn.Module, before: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the parts of a module's state that its first call changed.

    Known packages fill caches in their first call (Funnel, BigBird of transformers), which is no condition.

    Args:
        module: The module after the call.
        before: Its state before the call.
    """
    return tuple(changed_names(before, state_of(module))) if runs_foreign_code(module) else ()


def count_outputs(module: nn.Module, inputs: InputSpec, *, what: str = "logits") -> int:
    """Return the number K of output values; the modes of all submodules stay as they are.

    Args:
        module: The module.
        inputs: Specification of its inputs.
        what: Name of the outputs in error messages.

    Raises:
        UnusableInput: The output for two blank inputs is not (2, K) with K >= 2, or it is not finite for noise either.
    """
    output = output_of(module, inputs.blank(2))
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 2 or output.shape[1] < 2:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UnusableInput(f"expected {what} of shape (N, K), K being at least 2, the model outputs {found}")
    if not bool(torch.isfinite(output).all()) and isinstance(inputs, ImageSpec):
        # A model that divides by the deviation of each image is undefined for a blank one.
        noise = torch.rand(2, *inputs.shape, generator=torch.Generator().manual_seed(0))
        output = output_of(module, noise)
    if not bool(torch.isfinite(output).all()):
        raise UnusableInput(f"the model outputs NaN or infinite {what} for simple inputs; its weights are unusable")
    return int(output.shape[1])
