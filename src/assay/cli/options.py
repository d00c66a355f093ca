"""Arguments and options of several commands, each declared once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.core.errors import UnusableInput
from assay.core.options import ModelOptions

if TYPE_CHECKING:
    from assay.auditing.config import AuditConfig

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A Hugging Face folder or hub id, a .safetensors file, an .onnx file."),
]

# Options of a model; ``model_options`` collects them.
Arch = Annotated[
    str | None,
    typer.Option(help="Of a bare .safetensors file: resnet20-cifar, ... or package.module:function of your own."),
]
Shape = Annotated[
    str | None,
    typer.Option(metavar="C,H,W", help="Size of the images, as 3,224,224; of a text model, its tokens, as 64."),
]
Mean = Annotated[str | None, typer.Option(metavar="M,M,M", help="Overrides the normalization: one number a channel.")]
Std = Annotated[str | None, typer.Option(metavar="S,S,S", help="Overrides the normalization: one number a channel.")]
Features = Annotated[
    bool,
    typer.Option("--features", help="Take a classifier as an encoder: cut it before its last linear layer."),
]
Pooling = Annotated[
    str | None,
    typer.Option(help="Pooling of an encoder's states: pooler, cls or mean.", show_default="its own"),
]
Output = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The output with the logits, if the model has several.", show_default="the only"),
]

# Options of the data.
DATA_HELP = "A folder of parquet files or images, a .npz file, a hub id, signs, signs:100 or digits."
Data = Annotated[str | None, typer.Option(help=DATA_HELP, show_default=False)]
NeededData = Annotated[str, typer.Option("--data", help=DATA_HELP)]
NoLabels = Annotated[
    bool,
    typer.Option("--no-labels", help="The data has no labels: names of files and folders are no classes."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column of the labels in a table.", show_default="a usual name"),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Read at most so many samples a split.")]

# Options of an audit.
Variants = Annotated[str | None, typer.Option(metavar="LIST", help="Variants to audit, with commas; see `assay list`.")]
Detectors = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Detectors to run, with commas; see `assay list`.", show_default="all"),
]
Budget = Annotated[float, typer.Option(metavar="SECONDS", help="End the search after that time.", show_default="none")]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="Triage: the cheap tests, on the model as given only. Never says clean."),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Run all tests again: take no stored findings from --out."),
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that run the tests.", show_default="half of the cores"),
]
Null = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Clean reference models of your own, from `assay calibrate`.")
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="The original model of a compressed MODEL, or a trusted encoder."),
]
ReferenceArch = Annotated[str | None, typer.Option(help="--arch of the reference.")]
ReferencePooling = Annotated[
    str | None, typer.Option(metavar="HOW", help="--pooling of the reference, if it is not the model's.")
]
ReferenceOutput = Annotated[str | None, typer.Option(metavar="NAME", help="--output of the reference.")]

# Options of all commands.
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Also write the result as JSON; - for standard output."),
]
SignReport = Annotated[
    Path | None,
    typer.Option(metavar="KEY.pem", help="Sign the report with this Ed25519 key, for `assay verify`."),
]
Limits = Annotated[
    str | None,
    typer.Option(
        "--limits",
        metavar="time=S,memory=GIB",
        help="Most seconds to read a file, and most GiB of memory.",
        show_default="120 s; 4 GiB or 8 x the files",
    ),
]
NoSandbox = Annotated[
    bool,
    typer.Option("--no-sandbox", help="Run in this process, without limits, for debugging.", show_default=False),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the output.")]
NeededOut = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the output.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="KEY=VALUE", help="A setting; may be repeated: -o patch.size=4 -o recipe.epochs=3."),
]


def model_options(
    arch: str | None = None,
    shape: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    features: bool = False,
    pooling: str | None = None,
    output: str | None = None,
) -> ModelOptions:
    """Return the options of a model out of the texts on the command line.

    Args:
        arch: Text of --arch.
        shape: Text of --shape.
        mean: Text of --mean.
        std: Text of --std.
        features: Whether --features is given.
        pooling: Text of --pooling.
        output: Text of --output.

    Raises:
        UnusableInput: A text is no list of numbers.
    """
    return ModelOptions(
        arch, sizes(shape, "--shape"), numbers(mean, "--mean"), numbers(std, "--std"), features, pooling, output
    )


def variant_names(text: str | None) -> tuple[str, ...]:
    """Return the variants named by --variants; the default ones for None."""
    from assay.stages import variants

    return variants.DEFAULT if text is None else variants.parse(text)


def audit_config(
    variants: str | None,
    detectors: str | None,
    *,
    no_labels: bool,
    budget: float,
    null: str | Path | None,
    seed: int,
) -> AuditConfig:
    """Return the settings of an audit out of the values on the command line.

    Args:
        variants: Text of --variants.
        detectors: Text of --detectors.
        no_labels: Whether --no-labels is given.
        budget: Seconds of --budget.
        null: File of --null.
        seed: Number of --seed.

    Raises:
        UnusableInput: A variant is unknown.
    """
    from assay.auditing.config import AuditConfig

    return AuditConfig(variant_names(variants), detectors, labels=not no_labels, budget=budget, null=null, seed=seed)


def check_budget(seconds: float) -> None:
    """Raise UnusableInput unless the budget is positive."""
    if not seconds > 0:  # also false for NaN
        raise UnusableInput(f"--budget: expected more than 0 seconds, got {seconds:g}")


def sizes(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return whole numbers with commas between them; None for None.

    Args:
        text: On the command line.
        option: Name of the option, for the error message.

    Raises:
        UnusableInput: The text is no list of whole numbers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UnusableInput(f"{option}: expected whole numbers with commas between them, as in 3,224,224, got {text!r}")
    return tuple(map(int, parts))


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return numbers with commas between them; None for None.

    Args:
        text: On the command line.
        option: Name of the option, for the error message.

    Raises:
        UnusableInput: The text is no list of finite numbers.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise UnusableInput(f"{option}: expected numbers with commas between them, as in 0.5,0.5,0.5, got {text!r}")
    return values
