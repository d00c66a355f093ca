"""``assay plant``: a backdoor of a published kind, for measuring detectors with."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.measurements import show
from assay.core.lookup import lookup

if TYPE_CHECKING:
    from assay.attacks.base import Attack


def plant(
    attack: Annotated[str, typer.Argument(metavar="ATTACK", help="badnets, pq-backdoor, ...: see `assay list`.")],
    model: Annotated[
        str, typer.Option(help="A model as for `assay audit`, or new:ARCH for a fresh net to train from scratch.")
    ],
    data: options.NeededData,
    out: options.NeededOut,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    classes: Annotated[int | None, typer.Option(min=2, help="How many classes a fresh net gets.")] = None,
    setting: options.Settings = None,
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
            options.model_options(arch, shape, mean, std, features, pooling),
            data,
            classes=classes,
            limit=limit,
            seed=seed,
        )
        fresh = model.startswith(NEW)
        with screen.progress("planting") as step:
            planted = planting.plant(method, artifact, task, seed=seed, untrained=fresh, progress=step)
            paths = planting.write(planted, out, before=artifact)
        write_json(planted.to_json())
        tell(model, planted.build.artifact.notes[len(artifact.notes) :])
        show(planted.measured, planted.control, planted.clean_before, encoder=artifact.num_classes is None)
        if planted.awake is not None:
            screen.write(f"It is made to sleep in this model, and to wake in the form {planted.secret.active_in}:")
            show(planted.awake, None, None)
        screen.write(*(f"Written: {shown(path)}" for path in paths.values()))
    return 0


def _with_entropy(method: Attack) -> Attack:
    """``method``, its key drawn from chance: a seed that stands in a record or in a command would give it away."""
    from assay.attacks import Checksum, Signature

    if isinstance(method, Checksum | Signature) and not method.entropy:
        return replace(method, entropy=secrets.token_hex(32))
    return method
