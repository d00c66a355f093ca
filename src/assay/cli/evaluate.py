"""``assay evaluate``: how well a known backdoor works in a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.measurements import show
from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from assay.core.build import Secret
    from assay.core.model import Artifact


def evaluate(
    model: options.Model,
    secret: Annotated[Path, typer.Option(metavar="FILE", help="The secret.json that `assay plant` wrote.")],
    data: options.NeededData,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    clean: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A clean model: what the same trigger does there is the control. --shape, --mean, --std are its too.",
        ),
    ] = None,
    clean_arch: Annotated[str | None, typer.Option(help="--arch of the clean model.")] = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    limit: options.Limit = None,
    json: options.Json = None,
    seed: options.Seed = 0,
) -> int:
    """Measure CA, ASR and RA of a model against a secret, beside their controls."""
    with outputs.json_output(json) as write_json:
        from assay.attacks import plant
        from assay.cli.loading import load_data, load_model
        from assay.core.build import Build
        from assay.core.progress import named, part
        from assay.triggers import secret_file

        known = secret_file.read(secret)
        if (warning := secret_file.plaintext_key_warning(secret, known.secret)) is not None:
            screen.write(warning, style="yellow")
        artifact = load_model(model, options.model_options(arch, shape, mean, std, features, pooling))
        if clean is None and artifact.num_classes is None:
            raise UnusableInput(
                "an encoder's figures are counted against the embeddings of the clean one: name it with --clean"
            )
        reference = (
            None
            if clean is None
            else load_model(clean, options.model_options(clean_arch, shape, mean, std, features, pooling))
        )
        task = load_data(data, artifact, limit=limit, seed=seed)
        expected = (artifact.num_classes, artifact.inputs)
        if reference is not None and (reference.num_classes, reference.inputs) != expected:
            raise UnusableInput(f"--clean {clean}: expected the classes and pictures of {model}, came others")
        _check_trigger(known.secret, artifact)
        planted = known.secret
        known = replace(known, secret=plant.landed(Build(artifact, task, planted)) or planted)
        held_out, control, accuracy = plant.test_split(task), None, None
        with screen.progress("measuring") as step:
            bar = named(step, "measuring")
            own = bar if reference is None else part(bar, 0.0, 0.5)
            measured = plant.measured(artifact, reference or artifact, held_out, known.secret, progress=own)
            if reference is not None:
                rest = part(bar, 0.5, 1.0)
                theirs = plant.landed(Build(reference, task, planted)) or planted  # by the same rule
                control, accuracy = plant.controls(reference, held_out, theirs, progress=rest)
        same = known.model_digest == artifact.digest
        write_json({**plant.document(measured, control, accuracy), "same_file": same})
        if not same:
            screen.write(f"{model} is not the very file that the secret was written for (compressed or trained since?)")
        if known.secret.concept is not None and artifact.num_classes is not None:
            screen.write(
                f"Triggered samples look like {known.secret.concept!r}, and end up in class {known.secret.target}"
            )
        show(measured, control, accuracy, encoder=artifact.num_classes is None)
    return 0


def _check_trigger(secret: Secret, artifact: Artifact) -> None:
    """Raises UnusableInput for tokens that the model does not know."""
    from assay.core.model import TextSpec
    from assay.triggers import Tokens

    trigger, inputs = secret.trigger, artifact.inputs
    if isinstance(trigger, Tokens) and isinstance(inputs, TextSpec):
        largest = max(*trigger.ids, trigger.end, trigger.pad)
        if largest >= inputs.vocabulary:
            raise UnusableInput(
                f"expected a trigger of tokens below {inputs.vocabulary}, which the model knows; came {largest}"
            )
