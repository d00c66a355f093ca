"""Command ``assay calibrate``: a null distribution from the user's own clean models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from assay.cli import options, outputs, screen


def calibrate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Clean models, as for `assay audit`.")],
    data: options.NeededData,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file for `assay audit --null`.")],
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    output: options.Output = None,
    no_labels: options.NoLabels = False,
    label_column: options.LabelColumn = None,
    variants: options.Variants = None,
    seed: options.Seed = 0,
) -> int:
    """Score clean models of your own task, to compare audits with. Continues an interrupted run."""
    outputs.check_file(out, "--out")
    with outputs.json_output(None):
        from assay.auditing import calibrate as calibration
        from assay.auditing.facts import MAX_SAMPLES
        from assay.calibration import file
        from assay.calibration.null import MIN_REFERENCE_MODELS
        from assay.cli.loading import load_data, load_model, shown

        settings = calibration.Calibration(options.variant_names(variants), seed=seed)
        partial_file = out.with_name(f"{out.name}.partial")
        model_options = options.model_options(arch, shape, mean, std, features, pooling, output)
        first = load_model(models[0], model_options)
        task = load_data(data, first, limit=4 * MAX_SAMPLES, seed=seed, labels=not no_labels, label_column=label_column)
        with screen.progress("calibrating") as step:
            null = calibration.calibrate(
                [partial(load_model, model, model_options, notes=False) for model in models],
                task,
                settings,
                so_far=file.load(partial_file) if partial_file.exists() else None,
                keep=lambda so_far: file.save(so_far, partial_file),
                progress=step,
            )
        file.save(null, out)
        partial_file.unlink(missing_ok=True)
        screen.write(f"Written: {shown(out)}, {len(null)} clean models")
        if len(null) < MIN_REFERENCE_MODELS:
            screen.write(
                f"A verdict needs {MIN_REFERENCE_MODELS} of them: with {len(null)}, all audits are inconclusive",
                style="yellow",
            )
    return 0
