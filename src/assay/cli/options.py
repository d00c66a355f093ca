"""The arguments and options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from assay.core.errors import UnusableInput

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A Hugging Face folder or hub id, a .safetensors file, an .onnx file."),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="A folder of parquet files or pictures, a .npz file, a hub id, signs, signs:100 or digits.",
        show_default=False,
    ),
]
NeededData = Annotated[
    str,
    typer.Option("--data", help="A folder of parquet files or pictures, a .npz file, a hub id, signs, or digits."),
]
Arch = Annotated[
    str | None,
    typer.Option(help="For a bare .safetensors file: resnet20-cifar, ... or package.module:function of your own."),
]
Shape = Annotated[
    str | None,
    typer.Option(
        metavar="C,H,W", help="The pictures' size, as in 3,224,224; of a model of text, its tokens, as in 64."
    ),
]
Features = Annotated[
    bool,
    typer.Option("--features", help="Take a classifier as an encoder: cut it before its last linear layer."),
]
Pooling = Annotated[
    str | None,
    typer.Option(help="How an encoder's states become one embedding: pooler, cls or mean.", show_default="its own"),
]
NoLabels = Annotated[
    bool,
    typer.Option("--no-labels", help="The data has no labels: names of files and folders are no classes."),
]
Detectors = Annotated[
    str | None, typer.Option(metavar="LIST", help="Tests to run, with commas; see `assay list`.", show_default="all")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Also write the answer as JSON; - for standard output."),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Read at most so many samples a split.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="KEY=VALUE", help="A setting, again and again: -o patch.size=4 -o recipe.epochs=3."),
]
Variants = Annotated[
    str | None, typer.Option(metavar="LIST", help="Forms of deployment, with commas; see `assay list`.")
]
Budget = Annotated[float, typer.Option(metavar="SECONDS", help="End the search then.", show_default="none")]
Null = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Clean reference models of your own, from `assay calibrate`.")
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="The full-precision model that MODEL was made from, or a trusted encoder."),
]
ReferenceArch = Annotated[str | None, typer.Option(help="--arch of the reference.")]
ReferencePooling = Annotated[
    str | None, typer.Option(metavar="HOW", help="--pooling of the reference, where it is not the model's.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder for what is written.")]
NeededOut = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for what is written.")]
Mean = Annotated[str | None, typer.Option(metavar="M,M,M", help="Overrides the normalization: one number a channel.")]
Std = Annotated[str | None, typer.Option(metavar="S,S,S", help="Overrides the normalization: one number a channel.")]


def sizes(text: str | None, option: str) -> tuple[int, ...] | None:
    """Whole numbers with commas between them; None for None."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UnusableInput(
            f"{option}: expected whole numbers with commas between them, as in 3,224,224; came {text!r}"
        )
    return tuple(map(int, parts))


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Numbers with commas between them; None for None."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise UnusableInput(f"{option}: expected numbers with commas between them, as in 0.5,0.5,0.5; came {text!r}")
    return values
