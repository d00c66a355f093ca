"""``assay audit-many``: one answer for a list, a folder or a pattern of models."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, outputs, screen
from assay.cli.bench import Artifacts, Ray, Workers, executor_of
from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    from assay.batch.audits import AuditedModel, AuditSettings
    from assay.bench.driver import RunProgress
    from assay.bench.records import Records

EXIT_CODES = {"backdoored": 1, "failed": 2, "inconclusive": 3, "clean": 0}
"""The first of them that any model got."""

COLUMNS = ("model", "verdict", "p", "target", "strongest finding")
MOST_ROWS, MOST_REASONS = 40, 10
"""Models shown on the screen, and failed ones with their reasons; the page has all."""


def audit_many(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models, folders of models, patterns in quotes.")
    ] = None,
    list_file: Annotated[Path | None, typer.Option("--list", metavar="FILE", help="More of them, one a line.")] = None,
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
    null: options.Null = None,
    seed: options.Seed = 0,
    out: options.Out = Path("assay-audits"),
    since: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Skip models that an earlier run with this --out has answered.")
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    artifacts: Artifacts = None,
) -> int:
    """Audit many models: one page for all, and nothing done twice.

    Whatever stops it, the next run goes on from there. Exit codes: 1 a backdoor was found in any of them, else 2 any
    could not be audited, else 3 any is inconclusive, else 0. Models that --since skips do not count.
    """
    if not budget > 0:
        raise UnusableInput(f"--budget: expected more than 0 seconds, came {budget:g}")
    with outputs.json_output(None), ExitStack() as stack:
        from assay.auditing import inputs
        from assay.batch import audits, collection
        from assay.bench.store import Store
        from assay.stages import variants as forms

        inputs.detectors_of(detectors)  # a misspelt name is said now, not once a model
        if null is not None:
            inputs.null_of(null)
        settings = audits.AuditSettings(
            data=_absolute(data),
            arch=arch,
            shape=options.sizes(shape, "--shape"),
            mean=options.numbers(mean, "--mean"),
            std=options.numbers(std, "--std"),
            features=features,
            pooling=pooling,
            labels=not no_labels,
            variants=forms.DEFAULT if variants is None else forms.parse(variants),
            detectors=detectors,
            budget=budget if math.isfinite(budget) else None,
            null=_absolute(None if null is None else str(null)),
            seed=seed,
        )
        _check_data(data, not no_labels)
        found = collection.find_models(models or [], list_file)
        outputs.check_folder(out)
        earlier = None if since is None else stack.enter_context(closing(_earlier(since, out)))
        store = stack.enter_context(closing(Store(out)))
        executor = executor_of(workers or os.cpu_count() or 1, ray)
        with screen.progress("starting") as step:

            def show(now: RunProgress) -> None:
                step(f"{now.done} of {now.total} models; {now.last}"[:100], now.done / max(1, now.total))

            answers = audits.run(found, settings, store, executor, blobs=artifacts, since=earlier, progress=show)
        where = {"--out": out, "--since": since, "--workers": workers, "--ray": ray, "--artifacts": artifacts}
        _publish(answers, out, artifacts, command=_command(models or [], list_file, settings, where))
    return exit_code(answers)


def exit_code(answers: list[AuditedModel]) -> int:
    """The worst of what was audited now."""
    verdicts = {answer.verdict for answer in answers if not answer.before}
    return next((code for verdict, code in EXIT_CODES.items() if verdict in verdicts), 0)


def _check_data(data: str | None, labels: bool) -> None:
    """A wrong --data is said now, not once a model."""
    if data is not None:
        from assay import data as loaders
        from assay.core.model import ImageSpec
        from assay.data.readers.parquet import only_texts

        if not only_texts(Path(data)):  # those are read with a model's tokenizer
            loaders.load(data, ImageSpec((3, 32, 32)), limit=1, labels=labels)


def _earlier(since: Path, out: Path) -> Records:
    from assay.bench.records import RECORDS, open_existing

    if since.resolve() == out.resolve():
        raise UnusableInput("--since and --out are the same folder: leave --since out, nothing there is done twice")
    if not (since / RECORDS).is_file():
        raise UnusableInput(f"--since {since}: expected the --out of an earlier audit-many, with {RECORDS} in it")
    return open_existing(since)


def _absolute(path: str | None) -> str | None:
    """A path that other machines' processes find too, where it is one."""
    return os.path.abspath(path) if path is not None and Path(path).exists() else path


def _command(given: list[str], list_file: Path | None, settings: AuditSettings, where: Mapping[str, object]) -> str:
    """What goes on with this run."""
    flags = {
        "--list": list_file,
        "--data": settings.data,
        "--arch": settings.arch,
        "--shape": _joined(settings.shape),
        "--mean": _joined(settings.mean),
        "--std": _joined(settings.std),
        "--pooling": settings.pooling,
        "--variants": _joined(settings.variants),
        "--detectors": settings.detectors,
        "--budget": settings.budget,
        "--null": settings.null,
        "--seed": settings.seed,
        **where,
    }
    texts = [part for name, value in flags.items() if value is not None for part in (name, str(value))]
    shown = given if len(given) <= MOST_ROWS or list_file else [*given[:MOST_ROWS], "..."]
    switches = {"--features": settings.features, "--no-labels": not settings.labels}
    return shlex.join(["assay", "audit-many", *shown, *texts, *(name for name, on in switches.items() if on)])


def _joined(values: tuple[object, ...] | None) -> str | None:
    return None if values is None else ",".join(map(str, values))


def _publish(answers: list[AuditedModel], out: Path, artifacts: str | None, *, command: str) -> None:
    """The page with the reports that it links to, and the worst of it on the screen."""
    from assay.batch import audits, page
    from assay.cli.loading import shown
    from assay.io.object_store import ObjectStore

    if artifacts is not None:
        audits.fetch_reports(answers, ObjectStore(artifacts), out)
    written = page.write(answers, out, command=command)["index.html"]
    rows = page.rows(answers)
    screen.table(
        "", COLUMNS, [(r.name, r.verdict, r.p_value, r.target, r.strongest) for r in rows[:MOST_ROWS]], right=("p",)
    )
    if len(rows) > MOST_ROWS:
        screen.write(f"and {len(rows) - MOST_ROWS:,} more on the page")
    for row in [row for row in rows if row.verdict == "failed"][:MOST_REASONS]:
        screen.write(f"{row.name}: {row.note}", style="yellow")
    said = ", ".join(f"{count:,} {verdict}" for verdict, count in page.counts(answers).items() if count)
    screen.write(f"{len(answers):,} models: {said}", f"The page: {shown(written)}")
