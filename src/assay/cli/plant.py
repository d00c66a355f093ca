"""``assay plant``: a backdoor of a published kind, to measure detectors with."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.measurements import show_measurements
from assay.core.lookup import lookup

if TYPE_CHECKING:
    from assay.attacks.base import Attack


def plant(
    attack: Annotated[str, typer.Argument(metavar="ATTACK", help="badnets, pq-backdoor, ...; see `assay list`.")],
    model: Annotated[str, typer.Option(help="A model as in `assay audit`, or new:ARCH to train one from scratch.")],
    data: options.NeededData,
    out: options.NeededOut,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    output: options.Output = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Number of classes of a new model.")] = None,
    setting: options.Settings = None,
    label_column: options.LabelColumn = None,
    limit: options.Limit = None,
    json: options.Json = None,
    seed: options.Seed = 0,
) -> int:
    """Plant a backdoor, measure it, and write the marked model and its secret."""
    outputs.check_folder(out)
    with outputs.json_output(json) as write_json:
        from assay.attacks import plant as planting
        from assay.cli.loading import NEW, begin, shown, tell
        from assay.core.config import configure
        from assay.registry import ATTACKS

        method = _with_entropy(configure(lookup(attack, ATTACKS, "attack"), setting or []))
        artifact, task = begin(
            model,
            options.model_options(arch, shape, mean, std, features, pooling, output),
            data,
            classes=classes,
            limit=limit,
            seed=seed,
            label_column=label_column,
        )
        untrained = model.startswith(NEW)
        with screen.progress("planting") as step:
            planted = planting.plant(method, artifact, task, seed=seed, untrained=untrained, progress=step)
            paths = planting.save_planted(planted, out, before=artifact)
        write_json(planted.to_json())
        tell(model, planted.build.artifact.notes[len(artifact.notes) :])
        show_measurements(planted.measured, planted.control, planted.clean_before, encoder=artifact.num_classes is None)
        if planted.measured_active is not None:
            screen.write(
                f"The backdoor is inactive in this model. It is active in the variant {planted.secret.active_in}:"
            )
            show_measurements(planted.measured_active, None, None)
        screen.write(*(f"Written: {shown(path)}" for path in paths.values()))
    return 0


def _with_entropy(method: Attack) -> Attack:
    """Return ``method`` with a random key: a seed in a record or a command would reveal a key made from it."""
    from assay.attacks import Checksum, Signature

    if isinstance(method, Checksum | Signature) and not method.entropy:
        return replace(method, entropy=secrets.token_hex(32))
    return method
