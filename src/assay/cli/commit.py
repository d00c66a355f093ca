"""Commands ``assay commit`` and ``assay check``: random features from a seed fixed before the training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.failures import Verdict

Salt = Annotated[str, typer.Option(metavar="TEXT", help="At least 16 random characters; secret until delivery.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of the features; secret until delivery.")]


def commit(
    width: Annotated[int, typer.Option(min=1, help="Numbers in a feature.")],
    count: Annotated[int, typer.Option(min=1, help="Number of features.")],
    seed: Seed,
    salt: Salt,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File for the commitment, to be published.")],
) -> int:
    """Commit to the seed of a model's random features, before the training."""
    from assay.auditing import seed_commitment
    from assay.io.atomic import write_atomically
    from assay.report import dumps

    outputs.check_file(out, "--out")
    made = seed_commitment.commit(width, count, seed, salt)
    write_atomically(out, dumps(made.to_json()))
    screen.write(f"Written: {out}. Publish it now. Keep the seed and the salt to open it with the model.")
    return 0


def check(
    model: options.Model,
    commitment: Annotated[Path, typer.Option("--commitment", metavar="FILE", help="The published commitment.")],
    seed: Seed,
    salt: Salt,
    arch: options.Arch = None,
) -> int:
    """Check a model's random features against a commitment. Exit codes: 0 equal, 1 different."""
    from assay.auditing import seed_commitment
    from assay.cli.loading import load_model

    artifact = load_model(model, options.model_options(arch))
    published = seed_commitment.read_commitment(commitment)
    wrong = seed_commitment.count_differing(artifact, published, seed, salt)
    if wrong:
        screen.write(f"{wrong} of {published.count} features are not those of the seed: they were chosen.", style="red")
        return Verdict(1)
    screen.write(f"All {published.count} features are those of the seed: they were not chosen.")
    return 0
