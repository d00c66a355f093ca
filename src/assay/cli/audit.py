"""``assay audit``: the main job."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.cli import options, outputs, screen
from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from assay.core.result import Audit

EXIT_CODES = {"clean": 0, "backdoored": 1, "inconclusive": 3}
STYLES = {"clean": "bold green", "backdoored": "bold red", "inconclusive": "bold yellow"}
COLUMNS = ("form", "accuracy", "agreement", "strongest detector", "p", "result")


def audit(
    model: options.Model,
    data: options.Data = None,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    no_labels: options.NoLabels = False,
    variants: options.Variants = None,
    detectors: options.Detectors = None,
    budget: options.Budget = math.inf,
    out: options.Out = Path("assay-report"),
    json: options.Json = None,
    reference: options.Reference = None,
    reference_arch: options.ReferenceArch = None,
    reference_pooling: options.ReferencePooling = None,
    null: options.Null = None,
    seed: options.Seed = 0,
) -> int:
    """Audit a model for backdoors, in every form in which it may be deployed.

    Exit codes: 0 no backdoor found, 1 backdoor found, 2 unusable input, 3 inconclusive.
    """
    if not budget > 0:
        raise UnusableInput(f"--budget: expected more than 0 seconds, came {budget:g}")
    outputs.check_folder(out)
    with outputs.json_output(json) as write_json:
        from assay.auditing import inputs
        from assay.auditing.api import audit as run
        from assay.cli.loading import Described, load_model
        from assay.stages import variants as forms

        names = forms.DEFAULT if variants is None else forms.parse(variants)
        tests, clean_models = inputs.detectors_of(detectors), None if null is None else inputs.null_of(null)
        said = Described(arch, shape, mean, std, features, pooling)
        artifact = load_model(model, said)
        others = replace(said, arch=reference_arch, pooling=reference_pooling or pooling)
        full = None if reference is None else load_model(reference, others)
        with screen.progress("reading the data") as step:
            result = run(
                artifact,
                data,
                labels=not no_labels,
                variant_names=names,
                detectors=None if detectors is None else tests,
                budget=budget,
                reference=full,
                null=clean_models,
                seed=seed,
                progress=step,
            )
        given = {
            "--data": data,
            **said.options(),
            "--no-labels": no_labels or None,
            "--variants": ",".join(names),
            "--detectors": detectors,
            "--budget": f"{budget:.12g}" if math.isfinite(budget) else None,
            "--reference": reference,
            "--reference-arch": reference_arch,
            "--reference-pooling": reference_pooling,
            "--null": null,
            "--seed": seed,
        }
        _publish(replace(result, command=_command(model, given)), out, write_json, told=artifact.notes)
    return EXIT_CODES[result.verdict]


def _command(model: str, options: Mapping[str, object]) -> str:
    """What repeats the audit: all that the answer depends on; where it is written to is the next reader's choice."""
    given = {name: [] if value is True else [str(value)] for name, value in options.items() if value is not None}
    return shlex.join(["assay", "audit", model, *(text for name in given for text in (name, *given[name]))])


def _publish(result: Audit, out: Path, write_json: Callable[[dict[str, Any]], None], *, told: tuple[str, ...]) -> None:
    """The report's files, the JSON answer, and the screen; the notes that were ``told`` already are left out there."""
    from assay import report
    from assay.cli.loading import shown

    _show(result)  # first: a full disk takes the files, not the answer
    page = report.write(result, out)["report.html"]
    write_json(report.to_json(result))
    screen.write(*(f"Note: {note}" for note in result.notes if note not in told), style="yellow")
    screen.write(f"The report: {shown(page)}")


def _show(result: Audit) -> None:
    """The table of forms and the verdict in plain words."""
    from assay.report.view import page_of

    page = page_of(result)
    rows = [
        (v.name, v.accuracy, v.agreement, v.strongest, v.strongest_p, v.not_tested_reason or v.result)
        for v in page.variants
    ]
    screen.table("", COLUMNS, rows, right=("accuracy", "agreement", "p"))
    screen.write(f"Input: {page.input}")
    screen.write(f"{page.verdict}: {page.sentence}", style=STYLES[result.verdict])
    screen.write(*filter(None, (page.reason, *page.meaning)))
