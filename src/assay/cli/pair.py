"""``assay pair``: single inputs on which a model does not agree with a trusted one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import options, outputs, screen
from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from torch import Tensor

    from assay.core.model import Artifact
    from assay.core.progress import Progress
    from assay.data.single_inputs import Input

SCHEMA = "assay.pairing/1"

RATE = 0.01
"""How often a clean input may stand out."""

FEWEST = 2 * (round(1 / RATE) - 1)
"""Clean samples: half of them fit the translation, and with fewer than 99 others nothing could be so rare."""

LIMIT = 2048
"""Clean samples that are read at most."""

BATCH = 512
"""Inputs that are in memory at once."""

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
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    pooling: options.Pooling = None,
    trusted_arch: Annotated[str | None, typer.Option("--with-arch", help="--arch of the trusted model.")] = None,
    trusted_shape: Annotated[str | None, typer.Option("--with-shape", help="--shape of it.")] = None,
    trusted_mean: Annotated[str | None, typer.Option("--with-mean", help="--mean of it.")] = None,
    trusted_std: Annotated[str | None, typer.Option("--with-std", help="--std of it.")] = None,
    trusted_pooling: Annotated[str | None, typer.Option("--with-pooling", help="--pooling of it.")] = None,
    json: options.Json = None,
    seed: options.Seed = 0,
) -> int:
    """Say which of your inputs a model sees otherwise than a model that you trust.

    Both are taken as encoders, a classifier up to its last layer. Clean samples (--data; best such that neither was
    trained on) tell how what the one says translates into what the other says; inputs that do not translate may carry
    a trigger.
    """
    with outputs.json_output(json) as write_json:
        from assay.cli.loading import load_model
        from assay.data.single_inputs import find_inputs
        from assay.formats.feature_extractor import to_feature_extractor

        probe = to_feature_extractor(load_model(model, options.model_options(arch, shape, mean, std, pooling=pooling)))
        said = options.model_options(trusted_arch, trusted_shape, trusted_mean, trusted_std, pooling=trusted_pooling)
        other = to_feature_extractor(load_model(trusted, said))
        if probe.modality is not other.modality:
            raise UnusableInput(
                f"--with {trusted}: expected a model of {probe.modality}s, as {model} is; came one of {other.modality}s"
            )
        found = find_inputs(inputs, probe.modality)
        doubts, clean = _doubts(probe, other, found, data, seed)
        document = {"schema": SCHEMA, "rate": RATE, "clean": clean, "inputs": [asdict(doubt) for doubt in doubts]}
        _show(doubts, clean)
        write_json(document)
    return 0


def _doubts(
    probe: Artifact, trusted: Artifact, inputs: list[Input], data: str, seed: int
) -> tuple[list[Doubt], dict[str, Any]]:
    """What is said of each input, the least agreed on first, and of the clean samples."""
    from assay.core.progress import named, part
    from assay.detectors.encoder.translation import paired

    own = _clean(probe, data, seed)
    others = own if trusted.inputs == probe.inputs else _clean(trusted, data, seed)
    with screen.progress("comparing") as step:
        bar = named(step, "comparing")
        parts = [part(bar, number / 4, (number + 1) / 4) for number in range(4)]
        pairing = paired(_embedded(probe, own, parts[0]), _embedded(trusted, others, parts[1]))
        said = [_said(artifact, inputs, bar) for artifact, bar in zip((probe, trusted), parts[2:], strict=True)]
        agreement = pairing.agreement(*said)
    p_values = pairing.p_values(agreement).tolist()
    found = zip(inputs, agreement.tolist(), p_values, strict=True)
    doubts = [Doubt(each.name, value, p, p <= RATE) for each, value, p in found]
    clean = {"samples": len(pairing.clean), "median_agreement": float(pairing.clean.median())}
    return sorted(doubts, key=lambda doubt: doubt.agreement), clean


def _clean(artifact: Artifact, data: str, seed: int) -> Tensor:
    """Clean samples in random order, the same ones for every model; those first that were hardly trained on."""
    import torch

    from assay.cli.loading import load_data

    task = load_data(data, artifact, limit=LIMIT, seed=seed, labels=False)
    names = [name for name in ("test", "validation", "calibration", "train") if name in task.splits]
    x = torch.cat([task.splits[name].x for name in (*names, *(task.splits.keys() - set(names)))])[:LIMIT]
    if len(x) < FEWEST:
        raise UnusableInput(
            f"--data {data}: expected at least {FEWEST} clean samples, so that one in {round(1 / RATE)} can be told; "
            f"came {len(x)}"
        )
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


def _said(artifact: Artifact, inputs: list[Input], progress: Progress) -> Tensor:
    """(N, D): what ``artifact`` says of ``inputs``, a few at a time."""
    import torch

    from assay.core.progress import part
    from assay.data.single_inputs import read_inputs

    found, cut = [], 0
    for start in range(0, len(inputs), BATCH):
        x, longer = read_inputs(inputs[start : start + BATCH], artifact.inputs)
        cut += longer
        bar = part(progress, start / len(inputs), min(1.0, (start + BATCH) / len(inputs)))
        found.append(_embedded(artifact, x, bar))
    if cut:
        limit = artifact.inputs.shape[0]
        screen.write(
            f"{artifact.name}: {cut:,} texts are longer than {limit} tokens and were cut there: what comes after was "
            "not looked at (--shape for more)",
            style="yellow",
        )
    return torch.cat(found)


def _embedded(artifact: Artifact, x: Tensor, progress: Progress) -> Tensor:
    from assay.nn.inference import forward_batched

    return forward_batched(artifact.module.eval(), x, progress=progress)


def _show(doubts: list[Doubt], clean: dict[str, Any]) -> None:
    out = [doubt for doubt in doubts if doubt.stands_out]
    rows = [(doubt.name, f"{doubt.agreement:.2f}", f"{doubt.p_value:.3f}") for doubt in out[:SHOWN]]
    if rows:
        screen.table("", ("input", "agreement", "p"), rows, right=("agreement", "p"))
    if len(out) > SHOWN:
        screen.write(f"... and {len(out) - SHOWN:,} more; --json has them all")
    median = clean["median_agreement"]
    screen.write(
        f"On clean samples the two models agree by {median:.2f} (1 would be fully; {clean['samples']:,} samples)"
    )
    if median < POOR:
        screen.write("That is little: pair models that were made for the same kind of input", style="yellow")
    expected = RATE * len(doubts)
    screen.write(
        f"{len(out):,} of {len(doubts):,} inputs are seen otherwise than clean ones are; about {expected:.1f} would be "
        "if all were clean",
        style="bold red" if len(out) > max(1.0, 3 * expected) else "",
    )
