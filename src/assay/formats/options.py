"""Options of ``assay.formats.load`` after validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.core.errors import UnusableInput
from assay.core.options import ModelOptions
from assay.formats.huggingface.pooling import Pooling, parse_pooling
from assay.formats.normalization import Normalization
from assay.formats.shape import Shape, as_length, as_shape


@dataclass(frozen=True)
class LoadOptions:
    """The user's options for a model. None: the model file decides."""

    arch: str | None = None
    shape: Shape | None = None  # (C, H, W) of images
    length: int | None = None  # of texts, in tokens
    normalization: Normalization | None = None
    pooling: Pooling | None = None
    output: str | None = None  # name of the logits among several outputs

    @classmethod
    def parse(cls, options: ModelOptions) -> LoadOptions:
        """Return the options with checked values; raise UnusableInput for an unusable one."""
        shape = options.shape
        length = as_length(shape[0], "shape") if isinstance(shape, Sequence) and len(shape) == 1 else None
        return cls(
            arch=options.arch,
            shape=None if shape is None or length is not None else as_shape(shape, "shape"),
            length=length,
            normalization=Normalization.of(options.mean, options.std),
            pooling=parse_pooling(options.pooling),
            output=options.output,
        )

    def refuse_arch(self, what: str) -> None:
        """Raise UnusableInput if an architecture is given for a model with its own."""
        if self.arch is not None:
            raise UnusableInput(
                f"{what}: expected no architecture, the format brings its own; got {self.arch}. Fix: leave it out."
            )


def refuse_output(output: str | None, what: str) -> None:
    """Raise UnusableInput if an output is given for a model whose class names its logits.

    Args:
        output: Name of the output.
        what: Name of the model.
    """
    if output is not None:
        raise UnusableInput(
            f"{what}: expected no name of an output, its class defines the output; got {output!r}. Fix: leave it out."
        )
