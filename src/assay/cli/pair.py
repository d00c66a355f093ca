"""``assay pair``: single inputs with different embeddings in a model and in a trusted model."""

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

RATE = 0.01  # rate of clean inputs that stand out
MIN_CLEAN_SAMPLES = 2 * (round(1 / RATE) - 1)  # half of them fit the translation; the other half resolves RATE
MAX_CLEAN_SAMPLES = 2048
BATCH_SIZE = 512  # inputs in memory at once
SHOWN_INPUTS = 20  # in the table
LOW_AGREEMENT = 0.5  # a lower median on clean inputs means that the two models do not fit together


@dataclass(frozen=True)
class SuspectInput:
    """One input with the agreement of the two models."""

    name: str
    agreement: float  # in [-1, 1]
    p_value: float  # fraction of clean inputs with at most this agreement
    stands_out: bool


def pair(
    model: options.Model,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Images or folders of images; for a text model, files with one text a line."
        ),
    ],
    trusted: Annotated[
        str, typer.Option("--with", metavar="MODEL", help="A trusted model, of any architecture and training.")
    ],
    data: options.NeededData,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    pooling: options.Pooling = None,
    output: options.Output = None,
    trusted_arch: Annotated[str | None, typer.Option("--with-arch", help="--arch of the trusted model.")] = None,
    trusted_shape: Annotated[str | None, typer.Option("--with-shape", help="--shape of the trusted model.")] = None,
    trusted_mean: Annotated[str | None, typer.Option("--with-mean", help="--mean of the trusted model.")] = None,
    trusted_std: Annotated[str | None, typer.Option("--with-std", help="--std of the trusted model.")] = None,
    trusted_pooling: Annotated[
        str | None, typer.Option("--with-pooling", help="--pooling of the trusted model.")
    ] = None,
    json: options.Json = None,
    seed: options.Seed = 0,
) -> int:
    """Rank inputs by the disagreement of a model with a trusted model.

    Both models are used as encoders: a classifier without its last layer. Clean samples (--data) fit a translation
    from one model's embeddings to the other's. Use samples outside the training data of both models. An input with a
    wrong translation may have a trigger.
    """
    with outputs.json_output(json) as write_json:
        from assay.cli.loading import load_model
        from assay.data.single_inputs import find_inputs
        from assay.formats.feature_extractor import to_feature_extractor

        own_options = options.model_options(arch, shape, mean, std, pooling=pooling, output=output)
        probe = to_feature_extractor(load_model(model, own_options))
        trusted_options = options.model_options(
            trusted_arch, trusted_shape, trusted_mean, trusted_std, pooling=trusted_pooling
        )
        other = to_feature_extractor(load_model(trusted, trusted_options))
        if probe.modality is not other.modality:
            raise UnusableInput(
                f"--with {trusted}: expected a model of {probe.modality}s like {model}, got one of {other.modality}s"
            )
        found = find_inputs(inputs, probe.modality)
        suspects, clean = _compare(probe, other, found, data, seed)
        document = {"schema": SCHEMA, "rate": RATE, "clean": clean, "inputs": [asdict(suspect) for suspect in suspects]}
        _show(suspects, clean)
        write_json(document)
    return 0


def _compare(
    probe: Artifact, trusted: Artifact, inputs: list[Input], data: str, seed: int
) -> tuple[list[SuspectInput], dict[str, Any]]:
    """Return the inputs with the lowest agreement first, and a summary of the clean samples."""
    from assay.core.progress import named, part
    from assay.detectors.encoder.translation import fit_pairing

    own_clean = _clean_samples(probe, data, seed)
    other_clean = own_clean if trusted.inputs == probe.inputs else _clean_samples(trusted, data, seed)
    with screen.progress("comparing") as step:
        bar = named(step, "comparing")
        parts = [part(bar, number / 4, (number + 1) / 4) for number in range(4)]
        pairing = fit_pairing(_embed(probe, own_clean, parts[0]), _embed(trusted, other_clean, parts[1]))
        embeddings = [_embed_inputs(model, inputs, bar) for model, bar in zip((probe, trusted), parts[2:], strict=True)]
        agreement = pairing.agreement(*embeddings)
    p_values = pairing.p_values(agreement).tolist()
    rows = zip(inputs, agreement.tolist(), p_values, strict=True)
    suspects = [SuspectInput(each.name, value, p, p <= RATE) for each, value, p in rows]
    clean = {"samples": len(pairing.clean), "median_agreement": float(pairing.clean.median())}
    return sorted(suspects, key=lambda suspect: suspect.agreement), clean


def _clean_samples(artifact: Artifact, data: str, seed: int) -> Tensor:
    """Return clean samples in random order, the same for every model. Splits for tests come first."""
    import torch

    from assay.cli.loading import load_data

    task = load_data(data, artifact, limit=MAX_CLEAN_SAMPLES, seed=seed, labels=False)
    names = [name for name in ("test", "validation", "calibration", "train") if name in task.splits]
    x = torch.cat([task.splits[name].x for name in (*names, *(task.splits.keys() - set(names)))])[:MAX_CLEAN_SAMPLES]
    if len(x) < MIN_CLEAN_SAMPLES:
        raise UnusableInput(
            f"--data {data}: expected at least {MIN_CLEAN_SAMPLES} clean samples for a rate of one in "
            f"{round(1 / RATE)}, got {len(x)}"
        )
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


def _embed_inputs(artifact: Artifact, inputs: list[Input], progress: Progress) -> Tensor:
    """Return the embeddings (N, D) of ``inputs``, batch by batch."""
    import torch

    from assay.core.progress import part
    from assay.data.single_inputs import read_inputs

    embeddings, shortened = [], 0
    for start in range(0, len(inputs), BATCH_SIZE):
        x, too_long = read_inputs(inputs[start : start + BATCH_SIZE], artifact.inputs)
        shortened += too_long
        bar = part(progress, start / len(inputs), min(1.0, (start + BATCH_SIZE) / len(inputs)))
        embeddings.append(_embed(artifact, x, bar))
    if shortened:
        limit = artifact.inputs.shape[0]
        screen.write(
            f"{artifact.name}: {shortened:,} texts are longer than {limit} tokens. The rest of them was ignored. "
            "Fix: give a larger --shape.",
            style="yellow",
        )
    return torch.cat(embeddings)


def _embed(artifact: Artifact, x: Tensor, progress: Progress) -> Tensor:
    from assay.nn.inference import forward_batched

    return forward_batched(artifact.module.eval(), x, progress=progress)


def _show(inputs: list[SuspectInput], clean: dict[str, Any]) -> None:
    suspects = [suspect for suspect in inputs if suspect.stands_out]
    rows = [(suspect.name, f"{suspect.agreement:.2f}", f"{suspect.p_value:.3f}") for suspect in suspects[:SHOWN_INPUTS]]
    if rows:
        screen.table("", ("input", "agreement", "p"), rows, right=("agreement", "p"))
    if len(suspects) > SHOWN_INPUTS:
        screen.write(f"... and {len(suspects) - SHOWN_INPUTS:,} more; --json lists all")
    median = clean["median_agreement"]
    screen.write(f"Median agreement on {clean['samples']:,} clean samples: {median:.2f} (the maximum is 1)")
    if median < LOW_AGREEMENT:
        screen.write("The agreement is low. Fix: use two models for the same kind of input.", style="yellow")
    expected = RATE * len(inputs)
    screen.write(
        f"{len(suspects):,} of {len(inputs):,} inputs stand out. Expected if all are clean: about {expected:.1f}",
        style="bold red" if len(suspects) > max(1.0, 3 * expected) else "",
    )
