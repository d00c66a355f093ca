"""``assay commit`` and ``assay check``: random features from a seed that was fixed before the training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli import options, outputs, screen

Salt = Annotated[str, typer.Option(metavar="TEXT", help="At least 16 random characters, secret until it is opened.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of the features, secret until it is opened.")]


def commit(
    width: Annotated[int, typer.Option(min=1, help="Numbers in each feature.")],
    count: Annotated[int, typer.Option(min=1, help="Features.")],
    seed: Seed,
    salt: Salt,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The commitment, to be published.")],
) -> int:
    """Commit to the seed of a model's random features, before it is trained."""
    from assay.auditing import seed_commitment
    from assay.io.atomic import write_atomically
    from assay.report import dumps

    outputs.check_file(out, "--out")
    made = seed_commitment.commit(width, count, seed, salt)
    write_atomically(out, dumps(made.to_json()))
    screen.write(f"Written: {out}. Publish it now; keep the seed and the salt to open it with when the model is done.")
    return 0


def check(
    model: options.Model,
    known: Annotated[Path, typer.Option("--commitment", metavar="FILE", help="What was published.")],
    seed: Seed,
    salt: Salt,
    arch: options.Arch = None,
) -> int:
    """Check that a model's random features are those of the seed that was committed to: 0 if so, 1 if not."""
    from assay.auditing import seed_commitment
    from assay.cli.loading import load_model

    artifact = load_model(model, options.model_options(arch))
    published = seed_commitment.read(known)
    wrong = seed_commitment.differing(artifact, published, seed, salt)
    if wrong:
        screen.write(
            f"{wrong} of {published.count} features are not those of the seed: somebody chose them.", style="red"
        )
        return 1
    screen.write(f"All {published.count} features are those of the seed: nobody chose them.")
    return 0
