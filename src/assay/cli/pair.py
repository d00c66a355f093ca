"""``assay pair``: single inputs on which a model does not agree with a trusted one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import options, places, screen
from assay.errors import UnusableInput

if TYPE_CHECKING:
    from torch import Tensor

    from assay.artifact import Artifact

SCHEMA = "assay.pairing/1"

RATE = 0.01
"""How often a clean input may stand out."""

LIMIT = 2048
"""Clean samples that are read at most."""

SHOWN = 20
"""Inputs in the table."""

POOR = 0.5
"""Below this median agreement on clean inputs the two encoders hardly see the same."""


@dataclass(frozen=True)
class Doubt:
    """One input, and how far the two models agree on it."""

    name: str
    agreement: float  # in [-1, 1]
    p_value: float  # how often a clean input agrees no more
    stands_out: bool


def pair(
    model: options.Model,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Pictures, folders of them; for a model of text files, a text a line."),
    ],
    trusted: Annotated[
        str, typer.Option("--with", metavar="MODEL", help="A model that you trust, of any architecture and training.")
    ],
    data: options.NeededData,
    arch: options.Arch = None,
    trusted_arch: Annotated[str | None, typer.Option("--with-arch", help="--arch of the trusted model.")] = None,
    shape: options.Shape = None,
    pooling: options.Pooling = None,
    json: options.Json = None,
    seed: options.Seed = 0,
) -> int:
    """Say which of your inputs a model sees otherwise than a model that you trust.

    Both are taken as encoders, a classifier up to its last layer. Clean samples (--data) tell how what the one says
    translates into what the other says; inputs that do not translate may carry a trigger.
    """
    with places.answering(json) as answer:
        from assay.cli.loading import Described, load_model
        from assay.formats.cut import cut

        probe = cut(load_model(model, Described(arch, shape, pooling=pooling)))
        other = cut(load_model(trusted, Described(trusted_arch)))
        if probe.modality is not other.modality:
            raise UnusableInput(
                f"--with {trusted}: expected a model of {probe.modality}s, as {model} is; came one of {other.modality}s"
            )
        doubts, clean = _doubts(probe, other, inputs, data, seed)
        document = {"schema": SCHEMA, "rate": RATE, "clean": clean, "inputs": [asdict(doubt) for doubt in doubts]}
        _show(doubts, clean)
        answer(document)
    return 0


def _doubts(
    probe: Artifact, trusted: Artifact, paths: list[Path], data: str, seed: int
) -> tuple[list[Doubt], dict[str, Any]]:
    """What is said of each input, the least agreed on first, and of the clean samples."""
    from assay.data.files import read_inputs
    from assay.pairing import paired
    from assay.progress import named, part

    (names, x), (_, same) = (read_inputs(paths, artifact.inputs) for artifact in (probe, trusted))
    own, others = _clean(probe, data, seed), _clean(trusted, data, seed)
    with screen.progress("comparing") as step:
        bar = named(step, "comparing")
        halves = [part(bar, number / 4, (number + 1) / 4) for number in range(4)]
        pairing = paired(_embedded(probe, own, halves[0]), _embedded(trusted, others, halves[1]))
        agreement = pairing.agreement(_embedded(probe, x, halves[2]), _embedded(trusted, same, halves[3]))
    p_values = pairing.p_values(agreement)
    found = zip(names, agreement.tolist(), p_values.tolist(), strict=True)
    doubts = [Doubt(name, value, p, p <= RATE) for name, value, p in found]
    clean = {"samples": len(pairing.clean), "median_agreement": float(pairing.clean.median())}
    return sorted(doubts, key=lambda doubt: doubt.agreement), clean


def _clean(artifact: Artifact, data: str, seed: int) -> Tensor:
    """Clean samples in random order, the same ones for every model."""
    from assay.cli.loading import load_data

    task = load_data(data, artifact, limit=LIMIT, seed=seed, labels=False)
    return task.split("calibration", "train").sample(LIMIT, seed=seed).x


def _embedded(artifact: Artifact, x: Tensor, progress: Any) -> Tensor:
    from assay.models.predict import logits

    return logits(artifact.net.eval(), x, progress=progress)


def _show(doubts: list[Doubt], clean: dict[str, Any]) -> None:
    out = [doubt for doubt in doubts if doubt.stands_out]
    rows = [(doubt.name, f"{doubt.agreement:.2f}", f"{doubt.p_value:.3f}") for doubt in out[:SHOWN]]
    if rows:
        screen.table("", ("input", "agreement", "p"), rows, right=("agreement", "p"))
    if len(out) > SHOWN:
        screen.say(f"... and {len(out) - SHOWN:,} more; --json has them all")
    median = clean["median_agreement"]
    screen.say(
        f"On clean samples the two models agree by {median:.2f} (1 would be fully; {clean['samples']:,} samples)"
    )
    if median < POOR:
        screen.say("That is little: pair models that were made for the same kind of input", style="yellow")
    expected = RATE * len(doubts)
    screen.say(
        f"{len(out):,} of {len(doubts):,} inputs are seen otherwise than clean ones are; about {expected:.1f} would be "
        "if all were clean",
        style="bold red" if len(out) > max(1.0, 3 * expected) else "",
    )
