"""Architectures by name: those of assay, and the user's own factories (``package.module:function``)."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from assay.core.errors import AssayError, UnusableInput, first_line
from assay.formats.normalization import Normalization
from assay.formats.shape import Shape, as_shape, format_shape
from assay.nn.architectures import ARCHITECTURES

CLASS_PARAMETERS = ("num_classes", "n_classes", "nclasses", "num_labels", "classes")
SIZES = (32, 28, 64, 96, 128, 224)  # pixels, tried in this order if a factory states no size


@dataclass(frozen=True)
class Factory:
    """Constructor of an architecture's models, with the known facts about it."""

    name: str
    make: Callable[[int], nn.Module]  # number of classes -> model without its normalization
    takes_classes: bool  # False: ``make`` ignores its argument
    shape: Shape | None = None
    normalization: Normalization | None = None  # None: the model takes [0, 1]

    def __call__(self, num_classes: int) -> nn.Module:
        """Return a new model; the random generator of torch stays as it is."""
        with torch.random.fork_rng(devices=[]):
            try:
                model = self.make(num_classes)
            except Exception as error:  # the user's own code can raise anything
                raise UnusableInput(
                    f"the architecture {self.name} failed to build: {type(error).__name__}: {first_line(error)}"
                ) from None
        if not isinstance(model, nn.Module):
            raise UnusableInput(
                f"expected an nn.Module from the architecture {self.name}, got a {type(model).__name__}"
            )
        return model


def factory_of(name: str, model: Path | None = None) -> Factory:
    """Return the factory of an architecture.

    Args:
        name: Name of an architecture, or ``package.module:function``.
        model: File of the model. Code next to it may be the work of the model's author.

    Raises:
        UnusableInput: The name is unknown, or its code lies in the model's folder.
    """
    if name in ARCHITECTURES:
        known = ARCHITECTURES[name]
        return Factory(name, known.build, True, known.shape, Normalization(known.mean, known.std))
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UnusableInput(
            f"unknown architecture {name}; known: {', '.join(ARCHITECTURES)}, or your own package.module:function"
        )
    function = _import_function(name, module_name, attribute, model)
    parameter = _class_parameter(function)
    shape = stated_shape(function)
    if parameter is None:
        return Factory(name, lambda _: function(), False, shape)
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return Factory(name, function, True, shape)
    key = parameter.name
    return Factory(name, lambda num_classes: function(**{key: num_classes}), True, shape)


def stated_shape(thing: object) -> Shape | None:
    """Return the attribute ``input_shape`` (C, H, W) of a factory or a model, None without one."""
    value = getattr(thing, "input_shape", None)
    return None if value is None else as_shape(value, "input_shape")


def guess_shape(model: nn.Module) -> tuple[Shape, tuple[str, ...]]:
    """Return a guess of (C, H, W), the first accepted one of ``SIZES``, and a note about the guess.

    The note is omitted if the model accepts no other of these sizes.

    Raises:
        UnusableInput: The model accepts none.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    channels = convolutions[0].in_channels if convolutions else 3
    model.eval()
    fitting = (size for size in SIZES if _runs(model, channels, size))
    first, second = next(fitting, None), next(fitting, None)
    if first is None:
        raise UnusableInput(
            f"the model runs on no image of {channels} channels and {', '.join(map(str, SIZES))} pixels. "
            "Fix: give the shape (C, H, W), or the factory or the model an attribute input_shape = (C, H, W)."
        )
    shape = channels, first, first
    note = (
        f"the input size is a guess: {format_shape(shape)}, though the model also runs on {second} pixels and perhaps "
        "others. Fix: give the shape (C, H, W) if it was trained on another."
    )
    return shape, () if second is None else (note,)


def _runs(model: nn.Module, channels: int, size: int) -> bool:
    try:
        with torch.no_grad():
            model(torch.zeros(2, channels, size, size))
    except Exception:  # the user's own code can raise anything on another size
        return False
    return True


def _import_function(name: str, module_name: str, attribute: str, model: Path | None) -> Callable[..., nn.Module]:
    try:
        module = _import_module(name, module_name, model)
        function = getattr(module, attribute)
    except AssayError:
        raise
    except Exception as error:  # the user's own module can raise anything
        raise UnusableInput(
            f"the architecture {name} cannot be imported: {type(error).__name__}: {first_line(error)}. "
            "Fix: install its package into the environment of assay, or correct the name."
        ) from None
    if not callable(function):
        raise UnusableInput(f"expected a function or a class as architecture {name}, got a {type(function).__name__}")
    return function


def _import_module(name: str, module_name: str, model: Path | None) -> ModuleType:
    """Return an installed module or one of PYTHONPATH, else one of the current folder.

    The current folder may come with a downloaded model. Installed packages come first, and never see that folder.
    """
    top = module_name.partition(".")[0]
    if top in sys.modules or importlib.util.find_spec(top) is not None:
        return importlib.import_module(module_name)
    with _current_folder_importable():
        found = importlib.util.find_spec(top)
        places = () if found is None else found.submodule_search_locations or (found.origin or "",)
        folder = None if model is None else model.resolve().parent
        if folder is not None and any(Path(place).resolve().is_relative_to(folder) for place in places):
            raise UnusableInput(
                f"the architecture {name}: expected code of your own, got code in the model's folder {folder}, perhaps "
                "by its author. Fix: if you trust it, move it elsewhere or add its folder to PYTHONPATH."
            )
        return importlib.import_module(module_name)


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _class_parameter(function: Callable[..., nn.Module]) -> inspect.Parameter | None:
    """Return the parameter for the number of classes: by its name, else the only required one."""
    parameters = inspect.signature(function).parameters
    for name in CLASS_PARAMETERS:
        if name in parameters:
            return parameters[name]
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    required = [p for p in parameters.values() if p.default is p.empty and p.kind not in variadic]
    return required[0] if len(required) == 1 else None
