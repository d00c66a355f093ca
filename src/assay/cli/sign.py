"""``assay sign``: an image with a valid signature for a signature backdoor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli import outputs, screen
from assay.core.errors import UnusableInput


def sign(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image with the input size of the model.")],
    secret: Annotated[Path, typer.Option(metavar="FILE", help="The secret.json of `assay plant signature`.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="The signed image, as a PNG file.")],
    label: Annotated[int | None, typer.Option(min=0, help="The target class.", show_default="the secret's")] = None,
) -> int:
    """Sign an image for a target class of a planted signature backdoor, to measure defenses with."""
    from dataclasses import replace

    from assay.core.model import ImageSpec
    from assay.data.images import decode_image, image_size
    from assay.io.atomic import write_atomically
    from assay.io.images import encode_input
    from assay.triggers import Signed, secret_file

    if out.suffix.lower() != ".png":
        raise UnusableInput(
            f"--out {out}: expected a .png file, got another format. Other formats lose the lowest bits."
        )
    outputs.check_file(out, "--out")
    known = secret_file.read(secret)
    if (warning := secret_file.plaintext_key_warning(secret, known.secret)) is not None:
        screen.write(warning, style="yellow")
    trigger = known.secret.trigger
    if not isinstance(trigger, Signed):
        raise UnusableInput(f"{secret}: expected the secret of a signature backdoor, got one of {known.secret.attack}")
    channels, height, width = trigger.shape
    size = image_size(image)
    if size != (height, width):
        raise UnusableInput(
            f"{image}: expected an image of {width} x {height} pixels, got {size[1]} x {size[0]}. "
            "Fix: resize the image first; resizing destroys a signature."
        )
    x = decode_image(image, ImageSpec((channels, height, width)), str(image))
    signed = trigger if label is None else replace(trigger, label=label)
    write_atomically(out, encode_input(signed(x[None])[0].numpy()))
    screen.write(
        f"Signed for class {signed.label}: {out}. No channel value of {image.name} changed by more than 1/255."
    )
    return 0
