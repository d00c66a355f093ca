"""``assay evaluate``: measurements of a known backdoor in a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.measurements import show_measurements
from assay.core.errors import UnusableInput


def evaluate(
    model: options.Model,
    secret: Annotated[Path, typer.Option(metavar="FILE", help="The secret.json of `assay plant`.")],
    data: options.NeededData,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    clean: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A clean model, as the control for the same trigger. --shape, --mean and --std apply to it too.",
        ),
    ] = None,
    clean_arch: Annotated[str | None, typer.Option(help="--arch of the clean model.")] = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    output: options.Output = None,
    label_column: options.LabelColumn = None,
    limit: options.Limit = None,
    json: options.Json = None,
    seed: options.Seed = 0,
) -> int:
    """Measure a known backdoor in a model: CA, ASR, RA and their controls."""
    with outputs.json_output(json) as write_json:
        from assay.attacks import plant
        from assay.cli.loading import load_data, load_model
        from assay.core.progress import named
        from assay.triggers import secret_file

        file = secret_file.read(secret)
        if (warning := secret_file.plaintext_key_warning(secret, file.secret)) is not None:
            screen.write(warning, style="yellow")
        artifact = load_model(model, options.model_options(arch, shape, mean, std, features, pooling, output))
        if clean is None and artifact.num_classes is None:
            raise UnusableInput("expected a clean encoder to compare the embeddings with, got none. Fix: add --clean.")
        control_options = options.model_options(clean_arch, shape, mean, std, features, pooling, output)
        control = None if clean is None else load_model(clean, control_options)
        task = load_data(data, artifact, limit=limit, seed=seed, label_column=label_column)
        with screen.progress("measuring") as step:
            result = plant.evaluate(file.secret, artifact, task, clean=control, progress=named(step, "measuring"))
        same_file = file.model_digest == artifact.digest
        write_json({**result.to_json(), "same_file": same_file})
        if not same_file:
            screen.write(f"{model} differs from the file of the secret (compressed or trained since?)")
        if result.secret.concept is not None and artifact.num_classes is not None:
            screen.write(f"Trigger concept: {result.secret.concept!r}. Target class: {result.secret.target}")
        show_measurements(result.measured, result.control, result.clean_accuracy, encoder=artifact.num_classes is None)
    return 0
