"""Command ``assay audit-many``: one page for a list, a folder or a pattern of models."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.failures import Verdict
from assay.cli.workers import Artifacts, Ray, Workers, executor_of
from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from assay.batch.audits import AuditedModel
    from assay.bench.driver import RunProgress
    from assay.bench.records import Records

# By verdict, the most important first: the first verdict that any model got decides.
EXIT_CODES = {"backdoored": 1, "failed": 2, "inconclusive": 3, "clean": 0}

COLUMNS = ("model", "verdict", "p", "target", "strongest finding")
MAX_ROWS, MAX_REASONS = 40, 10  # models on the screen, and failed ones with their reasons; the page has all


def audit_many(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models, folders of models, patterns in quotes.")
    ] = None,
    list_file: Annotated[Path | None, typer.Option("--list", metavar="FILE", help="More models, one a line.")] = None,
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
    quick: options.Quick = False,
    null: options.Null = None,
    seed: options.Seed = 0,
    out: options.Out = Path("assay-audits"),
    since: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Skip models with a result in an earlier run with this --out.")
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    artifacts: Artifacts = None,
) -> int:
    """Audit many models, each content once, and write one page.

    A new run continues an interrupted one, and tries failed models again. Exit codes: 1 if an audit found a backdoor,
    else 2 if an audit failed, else 3 if an audit was inconclusive, else 0. Models skipped by --since do not count.
    """
    options.check_budget(budget)
    with outputs.json_output(None), ExitStack() as stack:
        from assay.auditing import config as configs
        from assay.auditing import inputs
        from assay.batch import audits, collection
        from assay.batch.boxed import BoxedAudit
        from assay.bench.store import Store
        from assay.sandbox.phases import LINK, batch

        inputs.detectors_of(detectors)  # a misspelled name is reported now, not once a model
        if null is not None:
            inputs.load_null(null)
        model_options = options.model_options(arch, shape, mean, std, features, pooling, output)
        null_path = _absolute(None if null is None else str(null))
        config = options.audit_config(
            variants, detectors, no_labels=no_labels, budget=budget, null=null_path, seed=seed
        )
        config = replace(config, label_column=label_column, quick=quick)
        settings = audits.AuditSettings.of(_absolute(data), model_options, config)
        _check_data(data, not no_labels, label_column)
        found = collection.find_models(models or [], list_file)
        outputs.check_folder(out)
        earlier = None if since is None else stack.enter_context(closing(_earlier(since, out)))
        store = stack.enter_context(closing(Store(out)))
        executor = executor_of(workers or os.cpu_count() or 1, ray)
        with screen.progress("starting") as step:

            def show(now: RunProgress) -> None:
                step(f"{now.done} of {now.total} models; {now.last}"[:100], now.done / max(1, now.total))

            storage = audits.BatchStorage(store, artifacts, earlier)
            work = BoxedAudit(replace(LINK.limits, workers=executor.slots)) if LINK.pipe is not None else None
            with batch():
                answers = audits.run(found, settings, storage, executor, work=work, progress=show)
        keywords = configs.audit_keywords(model_options, config)
        named = {"list": list_file, "data": settings.data, **configs.shell_options(keywords)}
        places = {"out": out, "since": since, "workers": workers, "ray": ray, "artifacts": artifacts}
        words = ["assay", "audit-many", *_shortened(models or [], list_file)]
        _publish(answers, out, artifacts, command=configs.shell_command(words, {**named, **places}))
    return Verdict(exit_code(answers))


def exit_code(answers: list[AuditedModel]) -> int:
    """Return the exit code of the models audited in this run."""
    verdicts = {answer.verdict for answer in answers if not answer.before}
    return next((code for verdict, code in EXIT_CODES.items() if verdict in verdicts), 0)


def _check_data(data: str | None, labels: bool, label_column: str | None) -> None:
    """Raise UnusableInput for unusable data now, and not once a model."""
    if data is not None:
        from assay import data as loaders
        from assay.core.model import ImageSpec
        from assay.data.readers.parquet import only_texts

        if not only_texts(Path(data)):  # those are read with a model's tokenizer
            loaders.load(data, ImageSpec((3, 32, 32)), limit=1, labels=labels, label_column=label_column)


def _earlier(since: Path, out: Path) -> Records:
    from assay.bench.records import RECORDS, open_existing

    if since.resolve() == out.resolve():
        raise UnusableInput("--since and --out are the same folder. Fix: leave --since out; no model runs twice.")
    if not (since / RECORDS).is_file():
        raise UnusableInput(f"--since {since}: expected the --out of an earlier audit-many, with {RECORDS} in it")
    return open_existing(since)


def _absolute(path: str | None) -> str | None:
    """Return the absolute path of an existing file or folder, for processes elsewhere; other texts stay as they are."""
    return os.path.abspath(path) if path is not None and Path(path).exists() else path


def _shortened(models: list[str], list_file: Path | None) -> list[str]:
    """Return the models for the shown command; dots in place of the rest of a long list."""
    return models if len(models) <= MAX_ROWS or list_file else [*models[:MAX_ROWS], "..."]


def _publish(answers: list[AuditedModel], out: Path, artifacts: str | None, *, command: str) -> None:
    """Write the page with its reports, and print the most important rows.

    Args:
        answers: Answers of all models.
        out: Folder for the page.
        artifacts: Object store with the reports; None: they are in ``out``.
        command: Continues this run.
    """
    from assay.batch import audits, page
    from assay.cli.loading import shown
    from assay.io.object_store import ObjectStore

    if artifacts is not None:
        audits.fetch_reports(answers, ObjectStore(artifacts), out)
    written = page.write(answers, out, command=command)["index.html"]
    rows = page.rows(answers)
    screen.table(
        "", COLUMNS, [(r.name, r.verdict, r.p_value, r.target, r.strongest) for r in rows[:MAX_ROWS]], right=("p",)
    )
    if len(rows) > MAX_ROWS:
        screen.write(f"and {len(rows) - MAX_ROWS:,} more on the page")
    for row in [row for row in rows if row.verdict == "failed"][:MAX_REASONS]:
        screen.write(f"{row.name}: {row.note}", style="yellow")
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in page.counts(answers).items() if count)
    noun = "model" if len(answers) == 1 else "models"
    screen.write(f"{len(answers):,} {noun}: {counts}", f"The page: {shown(written)}")
