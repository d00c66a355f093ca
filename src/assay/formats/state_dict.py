"""Models built from an architecture and a file's tensors. The weights determine the number of classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.formats.arch import Factory

# Prefixes of all names in files of training code: DataParallel, wrappers, ``torch.compile``.
PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
TRIAL_CLASSES = (3, 5)  # class counts of two models; tensors of different shape between them depend on the classes
MAX_NAMES = 3  # in an error message


def build_from_state_dict(factory: Factory, tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """Return the architecture's model with a file's weights, in eval mode.

    Args:
        factory: The architecture.
        tensors: The file's tensors by name.
        where: Name of the file in error messages.

    Raises:
        UnusableInput: The tensors do not fit the architecture.
    """
    trials = [factory(count) for count in TRIAL_CLASSES[: 1 + factory.takes_classes]]
    tensors = strip_prefixes(tensors, set(trials[0].state_dict()))
    tensors = complete_shared(trials[0], tensors, where)
    model = trials[0]
    if factory.takes_classes:
        count = _num_classes(trials, tensors)
        model = model if count is None else factory(count)
    problems = misfits(model.state_dict(), tensors)
    if problems:
        raise UnusableInput(f"{where}: the tensors do not fit the architecture {factory.name}: {'; '.join(problems)}")
    model.load_state_dict(dict(tensors), strict=False)
    return model.eval()


def strip_prefixes(tensors: Mapping[str, Tensor], expected: set[str]) -> Mapping[str, Tensor]:
    """Remove prefixes shared by all names, unless an expected name begins with one."""
    while True:
        for prefix in PREFIXES:
            foreign = not any(name.startswith(prefix) for name in expected)
            if foreign and all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
                break
        else:
            return tensors


def complete_shared(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
    """Return a file's tensors with the names that share memory in the model. Files hold such a tensor once.

    Args:
        model: The architecture's model.
        tensors: The file's tensors by name.
        where: Name of the file in error messages.

    Raises:
        UnusableInput: The file holds different values for names that share memory.
    """
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel():
            groups.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    complete = dict(tensors)
    for names in groups.values():
        stored = [name for name in names if name in tensors]
        other = [name for name in stored[1:] if not torch.equal(tensors[name], tensors[stored[0]])]
        if other:
            raise UnusableInput(
                f"{where}: {stored[0]} and {other[0]} are one tensor in the architecture, and the file holds two "
                "different ones. Fix: give the architecture of this file."
            )
        complete |= {name: tensors[stored[0]] for name in names if stored}
    return complete


def misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return the differences between the expected and the found tensors in words; empty if they fit."""
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in expected]
    both = [name for name in expected if name in found]
    shapes = [
        f"{name} (expected {list(expected[name].shape)}, got {list(found[name].shape)})"
        for name in both
        if expected[name].shape != found[name].shape
    ]
    types = [
        f"{name} (expected {expected[name].dtype}, got {found[name].dtype})"
        for name in both
        if expected[name].is_floating_point() != found[name].is_floating_point()
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another type": types}
    return [
        f"{len(names)} {kind}: {', '.join(names[:MAX_NAMES])}{', ...' if len(names) > MAX_NAMES else ''}"
        for kind, names in kinds.items()
        if names
    ]


def _num_classes(trials: list[nn.Module], tensors: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes, read from a tensor with a class axis; None if there is none."""
    first, second = (model.state_dict() for model in trials)
    for name, tensor in first.items():
        for axis, sizes in enumerate(zip(tensor.shape, second[name].shape, strict=True)):
            if sizes == TRIAL_CLASSES and name in tensors and tensors[name].ndim == tensor.ndim:
                count = int(tensors[name].shape[axis])
                return count if count >= 2 else None
    return None
