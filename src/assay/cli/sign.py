"""``assay sign``: a picture that asks a model with a signature backdoor for a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli import outputs, screen
from assay.core.errors import UnusableInput


def sign(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Of the size that the model takes.")],
    secret: Annotated[Path, typer.Option(metavar="FILE", help="The secret.json that `assay plant signature` wrote.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="The signed picture, as a PNG file.")],
    label: Annotated[int | None, typer.Option(min=0, help="The class to ask for.", show_default="the secret's")] = None,
) -> int:
    """Sign a picture for a class of a planted signature backdoor, for measuring defences with."""
    from dataclasses import replace

    from assay.core.model import ImageSpec
    from assay.data.images import decode_image, image_size
    from assay.io.atomic import write_atomically
    from assay.io.images import encode_input
    from assay.triggers import Signed, secret_file

    if out.suffix.lower() != ".png":
        raise UnusableInput(f"--out {out}: expected a .png file: other formats do not keep the lowest bits")
    outputs.check_file(out, "--out")
    known = secret_file.read(secret)
    if (warning := secret_file.plaintext_key_warning(secret, known.secret)) is not None:
        screen.write(warning, style="yellow")
    trigger = known.secret.trigger
    if not isinstance(trigger, Signed):
        raise UnusableInput(f"{secret}: expected the secret of a signature backdoor, came one of {known.secret.attack}")
    channels, height, width = trigger.shape
    came = image_size(picture)
    if came != (height, width):
        raise UnusableInput(
            f"{picture}: expected a picture of {width} x {height} pixels, as the model takes them, came {came[1]} x "
            f"{came[0]}: a signature does not survive resizing"
        )
    x = decode_image(picture, ImageSpec((channels, height, width)), str(picture))
    chosen = trigger if label is None else replace(trigger, label=label)
    write_atomically(out, encode_input(chosen(x[None])[0].numpy()))
    screen.write(f"Signed for class {chosen.label}, at most 1/255 away from {picture.name} in every subpixel: {out}")
    return 0
