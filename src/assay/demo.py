"""The whole of assay on one page: train a net, backdoor a copy, compress it, audit both. Offline."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assay import data, formats, report
from assay.attacks import BadNets
from assay.attacks.plant import test_split
from assay.auditing.api import audit
from assay.calibration.null import NullDistribution
from assay.core.build import Build
from assay.core.progress import Step, named, part
from assay.core.result import Audit
from assay.formats.untrained import inputs_of, untrained_model
from assay.io.atomic import publish
from assay.io.templates import template_environment
from assay.nn import metrics
from assay.nn.metrics import BackdoorMetrics
from assay.report.page import TEMPLATES
from assay.report.view import Page, page_of
from assay.stages.base import Stage
from assay.stages.prune import PruneMagnitude
from assay.stages.quantize import QuantizeInt8
from assay.stages.train import Recipe, Train
from assay.triggers import Patch

ARCH = "resnet8-cifar"
INDEX = "index.html"
FORMS: Mapping[str, Stage] = {"prune-50": PruneMagnitude(rate=0.5), "int8": QuantizeInt8()}
BADNETS = BadNets(target=3, patch=Patch(size=4, color="checker"), recipe=Recipe(epochs=5))


@dataclass(frozen=True)
class Settings:
    """What the demo does; the defaults take a minute or two on two cores."""

    classes: int = 10
    samples: int | None = None  # a split, at most; None: all that the signs have
    training: Recipe = Recipe(epochs=3)  # noqa: RUF009 (frozen)
    attack: BadNets = BADNETS
    variants: tuple[str, ...] = ("full", *FORMS)
    null: NullDistribution | None = None  # None: the package's
    seed: int = 0


@dataclass(frozen=True)
class Demo:
    """What the demo found: each form's measurements, both audits, and the page that shows them side by side."""

    measured: Mapping[str, BackdoorMetrics]  # by form; "clean" is the model before the backdoor, under the same trigger
    audits: Mapping[str, Audit]  # "clean" and "backdoored"
    index: Path


def demo(directory: Path, settings: Settings, *, progress: Step = lambda what, share: None) -> Demo:
    """Train on signs, plant BadNets, prune and quantize, audit clean and backdoored; write all pages."""
    seed = settings.seed
    progress("drawing traffic signs", 0.0)
    task = data.load(f"signs:{settings.classes}", inputs_of(ARCH), limit=settings.samples, seed=seed)
    start = untrained_model(ARCH, settings.classes, class_names=task.class_names, seed=seed)

    training = part(named(progress, "training a clean model"), 0.02, 0.12)
    clean = Train(recipe=settings.training)(Build(start, task), seed=seed, progress=training)
    planting = part(named(progress, "planting a backdoor in a copy"), 0.12, 0.28)
    backdoored = settings.attack(clean, seed=seed, progress=planting)

    progress("pruning and quantizing the copy", 0.28)
    forms = {"clean": clean, "backdoored": backdoored}
    forms |= {f"backdoored, {name}": stage(backdoored, seed=seed) for name, stage in FORMS.items()}
    secret = settings.attack.secret()
    measured = {
        name: metrics.measure(form.artifact.module, test_split(task), secret, num_classes=settings.classes)
        for name, form in forms.items()
    }
    audits = {
        name: _audited(name, forms[name], settings, _part(progress, 0.32 + 0.34 * number))
        for number, name in enumerate(("clean", "backdoored"))
    }
    return Demo(measured, audits, _write(directory, measured, audits, forms))


def _audited(name: str, build: Build, settings: Settings, progress: Step) -> Audit:
    return audit(
        replace(build.artifact, name=f"the demo's {name} model"),
        build.task,
        variant_names=settings.variants,
        null=settings.null,
        seed=settings.seed,
        progress=lambda what, share: progress(f"auditing the {name} model, {what}", share),
    )


def _part(progress: Step, start: float, width: float = 0.34) -> Step:
    """The progress of a part that takes ``width`` of the whole."""
    return lambda what, share: progress(what, start + width * share)


def _write(
    directory: Path, measured: Mapping[str, BackdoorMetrics], audits: Mapping[str, Audit], forms: Mapping[str, Build]
) -> Path:
    """The models, a report of each audit, and the page that puts both side by side."""
    pages = {name: page_of(result) for name, result in audits.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, result in audits.items():
            report.write(result, Path(folder) / name)
            formats.save(forms[name].artifact, Path(folder) / name)
        (Path(folder) / INDEX).write_text(_page(pages, list(measured.items())), encoding="utf-8")
        made = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    return publish(directory, made)[INDEX]


def _page(pages: Mapping[str, Page], rows: Sequence[tuple[str, BackdoorMetrics]]) -> str:
    return (
        template_environment(TEMPLATES)
        .get_template("demo.html.j2")
        .render(pages=pages, rows=rows, percent=report.formatting.format_percent)
    )
