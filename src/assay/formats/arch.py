"""``--arch``: the architectures that assay knows, and factories of the user's own (``package.module:function``)."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from assay.core.errors import UnusableInput, first_line
from assay.formats.normalization import Normalization
from assay.formats.shape import Shape, as_shape, written
from assay.nn.architectures import ARCHITECTURES

CLASS_PARAMETERS = ("num_classes", "n_classes", "nclasses", "num_labels", "classes")
SIZES = (32, 28, 64, 96, 128, 224)
"""Sizes in pixels that are tried, in this order, for a factory that does not say its own."""


@dataclass(frozen=True)
class Factory:
    """How to make an architecture's net, and what is known about it."""

    name: str
    make: Callable[[int], nn.Module]  # number of classes -> net without its normalization
    takes_classes: bool  # False: ``make`` ignores its argument
    shape: Shape | None = None
    normalization: Normalization | None = None  # None: the net takes [0, 1]

    def __call__(self, num_classes: int) -> nn.Module:
        """A new net; the random generator of torch is left as it was."""
        with torch.random.fork_rng(devices=[]):
            try:
                net = self.make(num_classes)
            except Exception as error:  # whatever the user's own code raises
                raise UnusableInput(
                    f"--arch {self.name} failed to build: {type(error).__name__}: {first_line(error)}"
                ) from None
        if not isinstance(net, nn.Module):
            raise UnusableInput(f"--arch {self.name}: expected an nn.Module from it, came a {type(net).__name__}")
        return net


def factory_of(name: str) -> Factory:
    """The factory that ``--arch name`` means; raises ``UnusableInput`` for names that mean nothing."""
    if name in ARCHITECTURES:
        known = ARCHITECTURES[name]
        return Factory(name, known.build, True, known.shape, Normalization(known.mean, known.std))
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UnusableInput(
            f"unknown --arch {name}; known: {', '.join(ARCHITECTURES)}, or package.module:function of your own"
        )
    function = _imported(name, module_name, attribute)
    parameter = _class_parameter(function)
    shape = stated_shape(function)
    if parameter is None:
        return Factory(name, lambda _: function(), False, shape)
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return Factory(name, function, True, shape)
    key = parameter.name
    return Factory(name, lambda num_classes: function(**{key: num_classes}), True, shape)


def stated_shape(thing: object) -> Shape | None:
    """(C, H, W) that a factory or a net states as its ``input_shape``; None where it does not."""
    value = getattr(thing, "input_shape", None)
    return None if value is None else as_shape(value, "input_shape")


def guess_shape(net: nn.Module) -> tuple[Shape, tuple[str, ...]]:
    """(C, H, W) of a net that nobody described: the first of ``SIZES`` on which it runs.

    The second is a sentence that says it is a guess; none where the net runs on no other of the sizes.
    """
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    channels = convolutions[0].in_channels if convolutions else 3
    net.eval()
    fitting = (size for size in SIZES if _runs(net, channels, size))
    first, second = next(fitting, None), next(fitting, None)
    if first is None:
        raise UnusableInput(
            f"the net runs on no picture of {channels} channels and {', '.join(map(str, SIZES))} pixels; "
            "give --shape C,H,W, or the factory or the net an attribute input_shape = (C, H, W)"
        )
    shape = channels, first, first
    note = (
        f"the input size is a guess: {written(shape)}, though the net also runs on {second} pixels and perhaps others; "
        "give --shape C,H,W if it was trained on another"
    )
    return shape, () if second is None else (note,)


def _runs(net: nn.Module, channels: int, size: int) -> bool:
    try:
        with torch.no_grad():
            net(torch.zeros(2, channels, size, size))
    except Exception:  # whatever the user's own code raises on a size that is not its own
        return False
    return True


def _imported(name: str, module_name: str, attribute: str) -> Callable[..., nn.Module]:
    try:
        with _current_folder_importable():
            function = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # whatever importing the user's own module raises
        raise UnusableInput(f"--arch {name} cannot be imported: {type(error).__name__}: {first_line(error)}") from None
    if not callable(function):
        raise UnusableInput(f"--arch {name}: expected a function or a class, came a {type(function).__name__}")
    return function


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _class_parameter(function: Callable[..., nn.Module]) -> inspect.Parameter | None:
    """The parameter that takes the number of classes: by its name, else the only one that is required."""
    parameters = inspect.signature(function).parameters
    for name in CLASS_PARAMETERS:
        if name in parameters:
            return parameters[name]
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    required = [p for p in parameters.values() if p.default is p.empty and p.kind not in variadic]
    return required[0] if len(required) == 1 else None
