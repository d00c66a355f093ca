"""Clean reference models of the shipped null distribution: many tasks, architectures and recipes.

All of the following is drawn at random (null_plans.py): tasks, architectures, depths, optimizers, learning rates,
augmentation, lengths of training and initial weights (random, third-party). The tasks are CIFAR-10, parts of CIFAR-10,
GTSRB and CIFAR-100, procedural signs and handwritten digits.

    python benchmarks/run.py null_images run STORE KIND  # trains and scores, on the bench's engine; resumable
    python benchmarks/run.py null_images compare STORE   # missing tests that compare variants with the full model
    python benchmarks/run.py null_images again STORE     # scores all models again, after a change to the tests
    python benchmarks/run.py null_images merge STORE     # -> shipped/images.json and results/

Models in results/null_models.json are kept and not made again. KIND: "weak", "tuned" (of CIFAR-10), "digits", "gtsrb"
or "signs". ``compare`` and ``again`` train a model again if its weights are not in STORE/nets. Training is
reproducible; a model with another accuracy is refused. After a change to a comparison, delete its rows in
results/null_models.json, or use ``again``.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from lib import commands
from lib.null_plans import ARCHITECTURES as OTHER_ARCHITECTURES
from lib.null_plans import MIN_CLASSES, NUMBERS, SHAPE, plan
from lib.paths import SHARED, SHIPPED
from lib.results import load_models, save_result, software_and_date
from safetensors.torch import load_file, save_file

from assay import formats
from assay._version import __version__
from assay.auditing.describe import describe
from assay.auditing.detection import run_tests
from assay.auditing.facts import MAX_SAMPLES, RunContext
from assay.auditing.inputs import clean_samples
from assay.auditing.plan import plan_audit
from assay.auditing.variant_maker import MAX_DISAGREEMENT
from assay.auditing.verdict import MIN_ACCURACY, scores_of
from assay.bench import driver
from assay.bench.executors import LocalExecutor
from assay.bench.guard import run_guarded
from assay.bench.job import Outcome, key_of
from assay.bench.records import open_existing
from assay.bench.store import Store
from assay.calibration import file
from assay.calibration.data_profile import data_profile
from assay.calibration.null import MIN_FAMILY_SIZE, NullDistribution
from assay.calibration.reference import WELL_TRAINED, CleanReferenceModel, Score
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.finding import FULL
from assay.core.model import Artifact, ImageSpec
from assay.data import load as load_data
from assay.detectors import CompressionGap
from assay.detectors.base import Detector
from assay.detectors.compression.compression_gap import WINDOW_BUDGET
from assay.formats.torch_module import from_module
from assay.nn.architectures import ARCHITECTURES, Normalized
from assay.nn.head import replace_head
from assay.nn.modes import eval_mode
from assay.stages.train import Recipe, fit
from assay.stages.variants import DEFAULT

PHOTOS = "photos of objects"
FAMILIES = {
    "cifar10": PHOTOS,
    "cifar100": PHOTOS,
    "gtsrb": "photos of road signs",
    "signs": "drawn signs",
    "digits": "digits",
}

# Variants that are compared with the full model; photos also in int4.
COMPARED_VARIANTS = ("int8", "prune-2:4", "int8-tensor", "filters-30")

ACCURACY_TOLERANCE = 0.01  # of one model trained on two machines


def task_of(facts: dict, number: int) -> Task:
    """Return the task of a reference model: the planned number of classes, drawn from the data set."""
    kind = facts["kind"].split("-")[0]
    spec = ImageSpec(tuple(facts.get("shape", SHAPE)))
    source = (
        f"signs:{facts['classes']}"
        if kind == "signs"
        else "digits"
        if kind == "digits"
        else str(SHARED / "data" / kind)
    )
    task = load_data(source, spec, seed=number) if kind == "signs" else _loaded(source, spec)
    if facts["classes"] == task.num_classes:
        return task
    classes = torch.randperm(task.num_classes, generator=torch.Generator().manual_seed(number))[: facts["classes"]]
    splits = {name: _only(split, classes) for name, split in task.splits.items()}
    return Task(task.name, splits, tuple(task.class_names[i] for i in classes.tolist()))


@lru_cache
def _loaded(source: str, spec: ImageSpec) -> Task:
    return load_data(source, spec)


def _only(split: Split, classes: torch.Tensor) -> Split:
    assert split.y is not None
    matches = split.y[:, None] == classes
    return Split(split.x[matches.any(1)], matches[matches.any(1)].int().argmax(1))


def initial_model(facts: dict, task: Task, number: int) -> Artifact:
    """Return the model before training: random weights, or third-party weights (for another task with a new head)."""
    name = facts.get("net") or f"resnet{facts['depth']}-cifar"
    if facts["start"] == "third-party":
        weights = SHARED / f"models/{name.removesuffix('-cifar')}-cifar10/model.safetensors"
        artifact = formats.load(weights, arch=name)
        if facts["kind"] != "cifar10-tuned":
            replace_head(artifact.module, task.num_classes, seed=number)
            artifact = replace(artifact, num_classes=task.num_classes, class_names=task.class_names)
        return artifact
    torch.manual_seed(number)
    shape = tuple(facts.get("shape", SHAPE))
    if name in OTHER_ARCHITECTURES:
        return from_module(OTHER_ARCHITECTURES[name](shape, task.num_classes), shape=shape)
    architecture = ARCHITECTURES[name]
    net = Normalized(architecture.build(task.num_classes), architecture.mean, architecture.std)
    return replace(from_module(net, shape=shape), arch=name)


def train(facts: dict, task: Task, number: int) -> Artifact:
    """Train a reference model."""
    artifact = initial_model(facts, task, number)
    fit(
        artifact.module,
        task.split("train").sample(facts["samples"], seed=number),
        Recipe(**facts["recipe"]),
        seed=number,
    )
    return artifact.with_module(artifact.module)


def measure(number: int) -> dict:
    """Train and score one reference model. A model with too low accuracy gets no scores."""
    facts = plan(number)
    task = task_of(facts, number)
    start = time.perf_counter()
    artifact = train(facts, task, number)
    facts["train_seconds"] = time.perf_counter() - start
    test = task.split("test").sample(1000, seed=0)
    assert test.y is not None
    with torch.no_grad():
        facts["accuracy"] = float((artifact.module(test.x).argmax(1) == test.y).float().mean())
    return facts if facts["accuracy"] < MIN_ACCURACY else facts | score(artifact, task, number)


def measure_comparisons(number: int, variants: tuple[str, ...], models: Path) -> dict:
    """Run the tests that compare ``variants`` with the full model, for a scored model."""
    artifact, task = retrain(number, models)
    return _with_same_accuracy(number, score(artifact, task, number, (FULL, *variants), (CompressionGap(),)))


def measure_again(number: int, models: Path) -> dict:
    """Run all tests of a scored model."""
    artifact, task = retrain(number, models)
    scored = _with_same_accuracy(number, score(artifact, task, number))
    more = compared_variants(plan(number)) - set(DEFAULT)
    return _merge(scored, score(artifact, task, number, (FULL, *sorted(more)), (CompressionGap(),))) if more else scored


def compared_variants(facts: dict) -> set[str]:
    """Return the variants that are compared with the full model, for a reference model with these facts."""
    return {*COMPARED_VARIANTS, *(("int4",) if FAMILIES[facts["kind"].split("-")[0]] == PHOTOS else ())}


def _with_same_accuracy(number: int, scored: dict) -> dict:
    """Return the scores of a model that was trained again.

    Raises:
        UnusableInput: The accuracy is another one.
    """
    before = load_models("null_models")[f"{number:03d}"]["accuracy"]
    if abs(scored["accuracy"] - before) > ACCURACY_TOLERANCE:
        raise UnusableInput(
            f"expected accuracy {before:.4f} after training again, got {scored['accuracy']:.4f}. "
            "Fix: use the machine and versions of the first training"
        )
    return scored


def retrain(number: int, models: Path) -> tuple[Artifact, Task]:
    """Return a scored model with its task, from the folder ``models`` or trained again."""
    facts, path = plan(number), models / f"{number:03d}.safetensors"
    task = task_of(facts, number)
    if path.exists():
        artifact = initial_model(facts, task, number)
        artifact.module.load_state_dict(load_file(path))
    else:
        artifact = train(facts, task, number)
        models.mkdir(exist_ok=True)
        save_file({name: value.contiguous() for name, value in artifact.module.state_dict().items()}, path)
    return artifact.with_module(artifact.module), task


def score(
    artifact: Artifact,
    task: Task,
    number: int,
    variants: tuple[str, ...] = DEFAULT,
    detectors: tuple[Detector, ...] | None = None,
) -> dict:
    """Return scores, targets, accuracy and seconds of one model."""
    with eval_mode(artifact.module):
        inputs = describe(artifact, clean_samples(task, artifact, seed=number), None, seed=number)
        result = run_tests(inputs, plan_audit(inputs.artifact, variants, detectors, None), RunContext(number))
    return {
        "scores": {test: score.value for test, score in scores_of(result.findings).items()},
        "targets": {f"{f.variant}/{f.detector}": f.target for f in result.findings},
        "accuracy": result.variants[0].accuracy,
        "agreement": {variant.name: variant.agreement for variant in result.variants},
        "seconds": {f"{f.variant}/{f.detector}": round(f.seconds, 2) for f in result.findings},
    }


@dataclass(frozen=True)
class ReferenceJob:
    """Job of the bench engine: make and score one reference model."""

    kind: ClassVar[str] = "reference"

    number: int
    compared: tuple[str, ...] = ()  # run only the tests that compare these variants with the full model
    again: bool = False  # run all tests of a model with a row

    @property
    def key(self) -> str:
        comparison = (*self.compared, repr(WINDOW_BUDGET)) if self.compared else ()
        again = ("again",) if self.again else ()
        return key_of([__version__, torch.__version__, self.number, plan(self.number), *comparison, *again])

    def needs(self) -> tuple[ReferenceJob, ...]:
        return ()

    def about(self) -> dict[str, int]:
        return {"number": self.number, "again": int(self.again)}

    def __str__(self) -> str:
        return f"reference model {self.number}"


def work(job: ReferenceJob, blobs: str) -> Outcome:
    """Run one job."""
    number, models = job.number, Path(blobs)
    if job.again:
        return run_guarded(lambda: measure_again(number, models))
    return run_guarded(lambda: measure_comparisons(number, job.compared, models) if job.compared else measure(number))


def new_jobs(kind: str) -> list[ReferenceJob]:
    """Return the jobs of models without a row."""
    scored = load_models("null_models")
    return [ReferenceJob(number) for number in NUMBERS[kind] if f"{number:03d}" not in scored]


def comparison_jobs() -> list[ReferenceJob]:
    """Return jobs for accurate models without scores of a usable variant in comparison with the full model.

    These are all models on photos, and on other data the number that a verdict needs.
    """
    scored = {
        number: model for number, model in load_models("null_models").items() if model["accuracy"] >= WELL_TRAINED
    }
    by_family: dict[str, list[str]] = {}
    for number, model in scored.items():
        by_family.setdefault(FAMILIES[model["kind"].split("-")[0]], []).append(number)
    by_family = {
        family: numbers[: None if family == PHOTOS else MIN_FAMILY_SIZE] for family, numbers in by_family.items()
    }
    missing = {
        number: _missing(scored[number], tuple(sorted(compared_variants(scored[number]))))
        for family in sorted(by_family, key=lambda family: family != PHOTOS)
        for number in by_family[family]
    }
    return [ReferenceJob(int(number), variants) for number, variants in missing.items() if variants]


def _missing(model: dict, variants: tuple[str, ...]) -> tuple[str, ...]:
    """Return the variants without a score, except variants that are broken or cannot be made."""
    agreement = {variant: value or 0.0 for variant, value in model.get("agreement", {}).items()}
    return tuple(
        variant
        for variant in variants
        if f"{variant}/{CompressionGap.name}" not in model["scores"]
        and 1 - agreement.get(variant, 1.0) <= MAX_DISAGREEMENT
    )


def run(store: Path, jobs: list[ReferenceJob], processes: int) -> None:
    """Run jobs on local processes."""

    def show(now: driver.RunProgress) -> None:
        print(f"{now.done} of {now.total}: {now.last}", flush=True)

    by_key = {job.key: job for job in jobs}
    driver.run(by_key, Store(store), LocalExecutor(processes), blobs=str(store / "nets"), work=work, progress=show)


def merge(store: Path) -> None:
    """Write all accurate models with scores, including earlier ones, as the package's null distribution."""
    details = load_models("null_models")
    with closing(open_existing(store)) as records:
        for record in records.records():
            if record.state == "done" and "scores" in (record.result or {}):
                name, row = f"{record.about['number']:03d}", dict(record.result or {})
                before = details.get(name, {})
                details[name] = {**before, **row} if record.about.get("again") else _merge(before, row)
    publish(dict(sorted(details.items())))


def publish(details: dict[str, dict]) -> None:
    """Write the package's null distribution, and its rows as a result file."""
    models = tuple(reference(int(number), model) for number, model in details.items())
    target = SHIPPED / "images.json"
    target.parent.mkdir(exist_ok=True)
    description = (
        f"{len(models)} clean models (CIFAR-style ResNets, plain and ConvNeXt-like ones) on CIFAR-10, parts of "
        "CIFAR-10, CIFAR-100 and GTSRB, drawn signs and digits, trained or fine-tuned by recipes drawn at random "
        f"(benchmarks/run.py null_images; {software_and_date()})"
    )
    file.save(NullDistribution("images", description, models, MIN_CLASSES), target)
    save_result("null_models", {"models": details})
    print(len(models), "models ->", target)


def _merge(old: dict, new: dict) -> dict:
    """Return a row with the scores of both."""
    tables = {name: {**old.get(name, {}), **part} for name, part in new.items() if isinstance(part, dict)}
    return {**old, **new, **tables}


def reference(number: int, model: dict) -> CleanReferenceModel:
    """Return one row of the null distribution."""
    clean = task_of(model, number).split("calibration").sample(MAX_SAMPLES, seed=number)
    family = FAMILIES[model["kind"].split("-")[0]]
    scores = {test: Score(value, model["targets"][test]) for test, value in model["scores"].items()}
    return CleanReferenceModel(scores, recipe_line(model), model["accuracy"], family, data_profile(clean.x) or ())


def recipe_line(model: dict) -> str:
    """Return one line about data, architecture and recipe."""
    recipe = " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in model["recipe"].items()
    )
    name = f"resnet{model.get('depth')}-cifar"
    return (
        f"{model['kind']} {model['classes']} classes, {model['start']} {model.get('net') or name}, "
        f"accuracy {model['accuracy']:.3f}, {recipe}"
    )


def run_new(store: Path, kind: str, processes: int) -> None:
    """Train and score the missing models of one kind."""
    run(store, new_jobs(kind), processes)


def run_again(store: Path, processes: int) -> None:
    """Run all tests of the models with a row."""
    run(store, [ReferenceJob(int(number), again=True) for number in load_models("null_models")], processes)


def run_comparisons(store: Path, processes: int) -> None:
    """Run the missing tests that compare variants with the full model."""
    run(store, comparison_jobs(), processes)


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    for name, function, help in (
        ("run", run_new, "train and score models; resumable"),
        ("compare", run_comparisons, "run missing comparisons with the full model; resumable"),
        ("again", run_again, "run all tests of all models again; resumable"),
        ("merge", merge, "write the null distribution"),
    ):
        command = add_command(name, function, help)
        command.add_argument("store", type=Path)
        if name == "run":
            command.add_argument("kind", choices=sorted(NUMBERS))
        if name != "merge":
            command.add_argument("--processes", type=int, default=2)
    commands.run(command_line)
