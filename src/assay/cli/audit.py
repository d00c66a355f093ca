"""Command ``assay audit``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.cli import options, outputs, report_key, screen
from assay.cli.failures import Verdict
from assay.core.options import ModelOptions
from assay.kinds import first_look
from assay.kinds.table import ADAPTER

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from assay.core.result import Audit, InputCheck

EXIT_CODES = {"clean": 0, "backdoored": 1, "inconclusive": 3}
STYLES = {"clean": "bold green", "backdoored": "bold red", "inconclusive": "bold yellow"}
COLUMNS = ("variant", "accuracy", "agreement", "strongest detector", "p", "result")


def audit(
    model: options.Model,
    data: options.Data = None,
    arch: options.Arch = None,
    shape: options.Shape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    pooling: options.Pooling = None,
    output: options.Output = None,
    no_labels: options.NoLabels = False,
    label_column: options.LabelColumn = None,
    variants: options.Variants = None,
    detectors: options.Detectors = None,
    budget: options.Budget = math.inf,
    jobs: options.Jobs = None,
    quick: options.Quick = False,
    fresh: options.Fresh = False,
    out: options.Out = Path("assay-report"),
    json: options.Json = None,
    sign_report: options.SignReport = None,
    reference: options.Reference = None,
    reference_arch: options.ReferenceArch = None,
    reference_pooling: options.ReferencePooling = None,
    reference_output: options.ReferenceOutput = None,
    null: options.Null = None,
    seed: options.Seed = 0,
) -> int:
    """Audit a model for backdoors, in each deployed variant.

    Finished tests are stored in --out: an interrupted audit goes on, and so does an audit after a quick one.

    Exit codes: 0 no backdoor found, 1 backdoor found, 2 unusable input, 3 inconclusive.
    """
    options.check_budget(budget)
    outputs.check_folder(out)
    key = None if sign_report is None else report_key.read_key(sign_report)  # before the audit, which takes minutes
    with outputs.json_output(json) as write_json:
        model_options = options.model_options(arch, shape, mean, std, features, pooling, output)
        seen = first_look(
            model, model_options, base=reference is not None, decided=null is not None or detectors is not None
        )
        base = reference if seen is not None and seen.kind.reader == ADAPTER else None

        from assay.auditing import config as configs
        from assay.auditing import inputs, known_findings, runner
        from assay.auditing.run import Callbacks, run_audit
        from assay.cli.loading import load_model

        config = replace(
            options.audit_config(variants, detectors, no_labels=no_labels, budget=budget, null=null, seed=seed),
            label_column=label_column,
            reference=reference,
            reference_arch=reference_arch,
            reference_pooling=reference_pooling,
            reference_output=reference_output,
            quick=quick,
            findings=configs.FindingsFolder(out / known_findings.FOLDER, model_options, fresh),
            jobs=jobs or 1,
        )
        keywords = configs.audit_keywords(model_options, config)
        words, named = ["assay", "audit", model], {"data": data, **configs.shell_options(keywords)}
        command = configs.shell_command(words, named)
        inputs.detectors_of(detectors)  # a misspelled name is reported before anything is loaded
        null_models = None if null is None else inputs.load_null(null)
        artifact = load_model(model, model_options, base=base)
        compared = reference is not None and base is None  # the base of an adapter is no model to compare with
        original = load_model(str(reference), config.reference_options(model_options)) if compared else None
        printed = list(artifact.notes)

        def show_notes(notes: Sequence[str]) -> None:
            screen.write(*(f"Note: {note}" for note in notes), style="yellow")
            printed.extend(notes)

        with screen.progress("reading the data", estimate=False) as step, _resume_hint(out):
            config = replace(config, reference=original, null=null_models, jobs=jobs or runner.default_processes())

            def show_check(check: InputCheck) -> None:  # after the data, whose errors are one line
                _show_check(check)
                screen.write(runner.processes_in_words(config.jobs))

            callbacks = Callbacks(step, show_check, show_notes)
            result = run_audit(artifact, data, ModelOptions(), config, command=command, callbacks=callbacks)
        _publish(result, out, write_json, key=key, printed=printed)
        if quick:
            rest = {**named, "quick": None, "out": out}
            screen.write(f"Run the other tests: {configs.shell_command(words, rest)}")
    return Verdict(EXIT_CODES[result.verdict])


def _publish(
    result: Audit,
    out: Path,
    write_json: Callable[[dict[str, Any]], None],
    *,
    key: Ed25519PrivateKey | None,
    printed: Sequence[str],
) -> None:
    """Print the result, and write the report and the JSON.

    Args:
        result: Result of the audit.
        out: Folder for the report.
        write_json: Writes the JSON document.
        key: Signs the report; None: it stays unsigned.
        printed: Notes on the screen already.
    """
    from assay import report
    from assay.cli.loading import shown

    _show(result)  # first, so that a full disk cannot lose the result
    page = report.write(result, out, key)["report.html"]
    write_json(report.to_json(result))
    screen.write(*(f"Note: {note}" for note in result.notes if note not in printed), style="yellow")
    screen.write(f"The report: {shown(page)}")


@contextmanager
def _resume_hint(out: Path) -> Iterator[None]:
    """Write a line after Ctrl-C: the same command goes on from the stored findings in ``out``."""
    try:
        yield
    except KeyboardInterrupt:
        screen.write(f"Finished tests are stored in {out}: the same command goes on from them.")
        raise


def _show_check(check: InputCheck) -> None:
    """Print the input check."""
    from assay.report.formatting import display_text

    for name, line in asdict(check).items():
        screen.write(f"{name.capitalize()}: {display_text(line, 1000)}")


def _show(result: Audit) -> None:
    """Print the table of variants and the verdict."""
    from assay.report.view import page_of

    page = page_of(result)
    rows = [
        (v.name, v.accuracy, v.agreement, v.strongest, v.strongest_p, v.not_tested_reason or v.result)
        for v in page.variants
    ]
    screen.table("", COLUMNS, rows, right=("accuracy", "agreement", "p"))
    screen.write(f"Input: {page.input}")
    screen.write(*filter(None, (page.deployment_line,)))
    screen.write(*(f"Asked as deployed: {line}" for line in page.differences), style="yellow")
    screen.write(f"{page.verdict}: {page.sentence}", style=STYLES[result.verdict])
    screen.write(f"Status: {result.status}")
    screen.write(*filter(None, (page.reason, *page.meaning)))
