"""Choice of the logits among the outputs of a model. Names in a model file do not decide it: its maker writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from assay.core.errors import UnusableInput

MAX_LISTED = 10  # outputs in an error message


@dataclass(frozen=True)
class ModelOutput:
    """One output of a model for a batch of blank inputs."""

    name: str
    description: str  # type and shape, for people
    can_be_logits: bool

    def __str__(self) -> str:
        """Return the name with type and shape."""
        return f"{self.name[:100]!r} {self.description}"


def describe_output(name: str, value: object, count: int) -> ModelOutput:
    """Describe one output.

    Floats of shape (N, K) or (N, K, 1, 1), K being at least 2, can be logits.

    Args:
        name: Name of the output.
        value: Its value for a batch.
        count: Number N of inputs in the batch.
    """
    if isinstance(value, Tensor):
        shape = tuple(value.shape)
        logits = len(shape) in (2, 4) and shape[0] == count and shape[1] >= 2 and all(side == 1 for side in shape[2:])
        kind = str(value.dtype).removeprefix("torch.")
        return ModelOutput(name, f"({kind} {list(shape)})", logits and value.is_floating_point())
    return ModelOutput(name, f"({_kind(value)})", False)


def choose_logits(outputs: Sequence[ModelOutput], wanted: str | None) -> ModelOutput:
    """Return the output with the logits: the wanted one, else the only one that can be logits.

    Args:
        outputs: All outputs of the model.
        wanted: Name given by the user.

    Raises:
        UnusableInput: There is no such output, or several can be logits. The message lists all.
    """
    found = ", ".join(map(str, outputs[:MAX_LISTED])) or "none"
    found += f" and {len(outputs) - MAX_LISTED} more" if len(outputs) > MAX_LISTED else ""
    if wanted is not None:
        chosen = [output for output in outputs if output.name == wanted]
        if not chosen:
            raise UnusableInput(f"expected one of its outputs, got {wanted!r}; it has {found}. Fix: give one of them.")
        if not chosen[0].can_be_logits:
            raise UnusableInput(
                f"expected logits, floats (N, K) with at least 2 classes, as the output {wanted!r}, "
                f"got {chosen[0].description}. Fix: give another of {found}."
            )
        return chosen[0]
    candidates = [output for output in outputs if output.can_be_logits]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        fix = "export it with its logits as an output"
        if any("sequence of maps" in output.description for output in outputs):
            fix = "export it with scores as a tensor (skl2onnx: options={id(model): {'zipmap': False}})"
        raise UnusableInput(
            f"expected an output of logits, floats (N, K) with at least 2 classes, got {found}. Fix: {fix}."
        )
    names = ", ".join(repr(output.name[:100]) for output in candidates[:MAX_LISTED])
    raise UnusableInput(
        f"expected one output of logits (N, K), got {len(candidates)}: {found}. "
        f"Fix: give the used one by the option output: {names}."
    )


def unexamined_note(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the sentence on outputs that an audit leaves out, none without such outputs."""
    if not outputs:
        return ()
    names = ", ".join(name[:100] for name in outputs[:MAX_LISTED])
    more = f" and {len(outputs) - MAX_LISTED} more" if len(outputs) > MAX_LISTED else ""
    return (f"of the model's outputs, {names}{more} {'was' if len(outputs) == 1 else 'were'} not examined",)


def flatten_logits(value: Tensor) -> Tensor:
    """Return logits (N, K, 1, 1) as (N, K)."""
    return value.flatten(1) if value.ndim == 4 else value


def named_parts(output: object) -> Mapping[str, object]:
    """Return the parts of a module's output by name; those of a tuple by their field's name or their position."""
    if isinstance(output, Mapping) and output:
        return {str(key): part for key, part in output.items()}
    if isinstance(output, tuple | list) and output:
        names = getattr(output, "_fields", None) or range(len(output))
        return {str(name): part for name, part in zip(names, output, strict=True)}
    tensors = {name: part for name, part in getattr(output, "__dict__", {}).items() if isinstance(part, Tensor)}
    return {"output": output} if isinstance(output, Tensor) or not tensors else tensors


def _kind(value: object) -> str:
    if isinstance(value, list) and value:
        return f"a sequence of {'maps' if isinstance(value[0], dict) else type(value[0]).__name__}"
    return type(value).__name__
