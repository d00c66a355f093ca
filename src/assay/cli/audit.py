"""``assay audit``: the main job."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, places, screen
from assay.errors import UnusableInput

if TYPE_CHECKING:
    from assay.result import Audit

EXIT_CODES = {"clean": 0, "backdoored": 1, "inconclusive": 3}
STYLES = {"clean": "bold green", "backdoored": "bold red", "inconclusive": "bold yellow"}
COLUMNS = ("form", "accuracy", "agreement", "strongest detector", "p", "result")


def audit(
    model: options.Model,
    data: options.Data = None,
    arch: options.Arch = None,
    mean: options.Mean = None,
    std: options.Std = None,
    variants: options.Variants = None,
    budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="End the search then.", show_default="none")
    ] = math.inf,
    out: options.Out = Path("assay-report"),
    json: options.Json = None,
    null: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Clean reference models of your own, from `assay calibrate`.")
    ] = None,
    seed: options.Seed = 0,
) -> int:
    """Audit a model for backdoors, in every form in which it may be deployed.

    Exit codes: 0 no backdoor found, 1 backdoor found, 2 unusable input, 3 inconclusive.
    """
    if not budget > 0:
        raise UnusableInput(f"--budget: expected more than 0 seconds, came {budget:g}")
    places.check_folder(out)
    with places.answering(json) as answer:
        from assay import calibrate, report
        from assay import variants as forms
        from assay.auditing import audit as run
        from assay.cli.loading import load_model, shown

        names = forms.DEFAULT if variants is None else forms.parse(variants)
        reference = None if null is None else calibrate.load(null)
        artifact = load_model(model, arch, mean=mean, std=std)
        with screen.progress("reading the data") as step:
            result = run(artifact, data, variant_names=names, budget=budget, null=reference, seed=seed, progress=step)
        given = {
            "--data": data,
            "--arch": arch,
            "--mean": mean,
            "--std": std,
            "--variants": ",".join(names),
            "--budget": f"{budget:.12g}" if math.isfinite(budget) else None,
            "--null": null,
            "--seed": seed,
        }
        result = replace(result, command=_command(model, given))
        page = report.write(result, out)["report.html"]
        answer(report.to_json(result))
        _show(result)
        screen.say(f"The report: {shown(page)}")
    return EXIT_CODES[result.verdict]


def _command(model: str, options: Mapping[str, object]) -> str:
    """What repeats the audit: all that the answer depends on; where it is written to is the next reader's choice."""
    given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    return shlex.join(["assay", "audit", model, *given])


def _show(result: Audit) -> None:
    """The table of forms and the verdict in plain words."""
    from assay.report.view import page_of

    page = page_of(result)
    rows = [
        (v.name, v.accuracy, v.agreement, v.strongest, v.strongest_p, v.skipped or v.verdict) for v in page.variants
    ]
    screen.table("", COLUMNS, rows, right=("accuracy", "agreement", "p"))
    screen.say(f"{page.word}: {page.sentence}", style=STYLES[result.verdict])
    screen.say(*filter(None, (page.reason, *page.meaning)))
