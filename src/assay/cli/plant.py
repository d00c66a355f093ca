"""``assay plant``: a backdoor of a published kind, for measuring detectors with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from assay.choices import chosen
from assay.cli import options, places, screen
from assay.cli.measurements import show
from assay.errors import UnusableInput

if TYPE_CHECKING:
    from assay.artifact import Artifact
    from assay.cli.loading import Described
    from assay.task import Task

NEW = "new:"


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
    classes: Annotated[int | None, typer.Option(min=2, help="How many classes a fresh net gets.")] = None,
    setting: options.Settings = None,
    limit: options.Limit = None,
    json: options.Json = None,
    seed: options.Seed = 0,
) -> int:
    """Plant a backdoor, measure it, and write the marked model and its secret."""
    places.check_folder(out)
    with places.answering(json) as answer:
        from assay import planting
        from assay.catalogue import ATTACKS
        from assay.cli.loading import Described, shown
        from assay.settings import configured

        method = configured(chosen(attack, ATTACKS, "attack"), setting or [])
        artifact, task = _start(model, Described(arch, shape, mean, std), data, classes, limit, seed)
        fresh = model.startswith(NEW)
        with screen.progress("planting") as step:
            planted = planting.plant(method, artifact, task, seed=seed, untrained=fresh, progress=step)
            paths = planting.write(planted, out, before=artifact)
        answer(planted.to_json())
        show(planted.measured, planted.control, planted.clean_before)
        if planted.awake is not None:
            screen.say(f"The backdoor sleeps in this model. In the form {planted.secret.wakes_in}, in which it wakes:")
            show(planted.awake, None, None)
        screen.say(*(f"Written: {shown(path)}" for path in paths.values()))
    return 0


def _start(
    model: str, said: Described, data: str, classes: int | None, limit: int | None, seed: int
) -> tuple[Artifact, Task]:
    """The model to plant in and its data."""
    from assay.cli.loading import load_data, load_model, tell

    if not model.startswith(NEW):
        if classes is not None:
            raise UnusableInput(f"--classes is only for a fresh net (--model {NEW}ARCH): the model brings its classes")
        artifact = load_model(model, said)
        return artifact, load_data(data, artifact, limit=limit, seed=seed)
    from assay.data import load
    from assay.fresh import fresh, inputs_of

    if said.arch is not None:
        raise UnusableInput(f"--arch is not for a fresh net: --model {model} names its architecture")
    name = model.removeprefix(NEW)
    size = options.sizes(said.shape, "--shape")
    mean, std = options.numbers(said.mean, "--mean"), options.numbers(said.std, "--std")
    task = load(data, inputs_of(name, shape=size), num_classes=classes, limit=limit, seed=seed)
    names = task.class_names
    artifact = fresh(name, task.num_classes, shape=size, mean=mean, std=std, class_names=names, seed=seed)
    tell(model, artifact.notes)
    tell(data, task.notes)
    return replace(artifact, name=model), task
