"""Forward hooks with removal on exit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

ForwardHook = Callable[[nn.Module, tuple[Any, ...], Any], Any]  # (module, inputs, output) -> new output or None


@contextmanager
def forward_hook(modules: Iterable[nn.Module], hook: ForwardHook) -> Iterator[None]:
    """Register ``hook`` on ``modules`` while the context is open.

    Args:
        modules: Modules to watch.
        hook: Function of the module, its inputs and its output. A result other than None replaces the output.
    """
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the first input of every call of ``module``, detached."""
    captured: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0].detach()))
    try:
        yield captured
    finally:
        handle.remove()
