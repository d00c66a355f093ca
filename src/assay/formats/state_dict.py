"""Fitting a file's tensors into an architecture: the number of classes is read off the weights, misfits are named."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from assay.core.errors import UnusableInput
from assay.formats.arch import Factory

PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
"""What training code puts before all names: DataParallel, wrappers, ``torch.compile``."""

PROBES = (3, 5)
SHOWN = 3


def build_from_state_dict(factory: Factory, tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """The factory's net with the file's weights, in eval mode; ``where`` names the file in errors."""
    probes = [factory(count) for count in PROBES[: 1 + factory.takes_classes]]
    tensors = strip(tensors, set(probes[0].state_dict()))
    net = probes[0]
    if factory.takes_classes:
        count = _num_classes(probes, tensors)
        net = net if count is None else factory(count)
    problems = misfits(net.state_dict(), tensors)
    if problems:
        raise UnusableInput(f"{where}: does not fit --arch {factory.name}: {'; '.join(problems)}")
    net.load_state_dict(dict(tensors), strict=False)
    return net.eval()


def strip(tensors: Mapping[str, Tensor], expected: set[str]) -> Mapping[str, Tensor]:
    """Takes off prefixes that all names have and that the architecture's own names do not begin with."""
    while True:
        for prefix in PREFIXES:
            foreign = not any(name.startswith(prefix) for name in expected)
            if foreign and all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
                break
        else:
            return tensors


def misfits(expected: Mapping[str, Tensor], came: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``came`` from being loaded as ``expected``, in words; empty where it fits."""
    missing = [name for name in expected if name not in came and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in came if name not in expected]
    both = [name for name in expected if name in came]
    shapes = [
        f"{name} (expected {list(expected[name].shape)}, came {list(came[name].shape)})"
        for name in both
        if expected[name].shape != came[name].shape
    ]
    types = [
        f"{name} (expected {expected[name].dtype}, came {came[name].dtype})"
        for name in both
        if expected[name].is_floating_point() != came[name].is_floating_point()
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another type": types}
    return [f"{len(names)} {kind}: {_few(names)}" for kind, names in kinds.items() if names]


def _num_classes(probes: list[nn.Module], tensors: Mapping[str, Tensor]) -> int | None:
    """The number of classes, read where the architecture's tensors change their shape with it."""
    first, second = (net.state_dict() for net in probes)
    for name, tensor in first.items():
        for axis, (a, b) in enumerate(zip(tensor.shape, second[name].shape, strict=True)):
            if (a, b) == PROBES and name in tensors and tensors[name].ndim == tensor.ndim:
                count = int(tensors[name].shape[axis])
                return count if count >= 2 else None
    return None


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
