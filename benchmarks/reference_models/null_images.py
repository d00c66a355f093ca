"""The clean reference models behind the shipped null distribution: many tasks, architectures and recipes.

Tasks (CIFAR-10, parts of CIFAR-10, GTSRB and CIFAR-100, procedural signs, handwritten digits), architectures, depths,
optimizers, learning rates, augmentation, lengths of training and starting points (scratch, other people's weights) are
all drawn at random (null_plans.py).

    python benchmarks/run.py null_images run STORE KIND [PROCESSES]  # trains and scores, on the bench's engine; resumable
    python benchmarks/run.py null_images beside STORE [PROCESSES]    # what is missing of tests beside a full model
    python benchmarks/run.py null_images merge STORE                 # -> shipped/images.json and results/

Models that were scored before, in results/null_models.json, are kept and not made again. KIND: "weak", "tuned" (of
CIFAR-10), "digits", "gtsrb" or "signs". ``beside`` trains models anew whose nets are not in STORE: a training run gives
the same net again, and one that does not is refused. After a change to such a test take its rows out of
results/null_models.json.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.results import origin as origin_of_run
from safetensors.torch import load_file, save_file

from assay import formats
from assay._version import __version__
from assay.auditing.describe import describe
from assay.auditing.detection import MAX_DISAGREEMENT, run_tests
from assay.auditing.facts import MAX_SAMPLES, RunContext
from assay.auditing.inputs import clean_samples
from assay.auditing.plan import plan_audit
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
from reference_models.null_plans import FEWEST, NETS, NUMBERS, SHAPE, plan

PHOTOS = "photos of objects"
FAMILIES = {
    "cifar10": PHOTOS,
    "cifar100": PHOTOS,
    "gtsrb": "photos of road signs",
    "signs": "drawn signs",
    "digits": "digits",
}


WITH_GAPS = ("int8", "prune-2:4", "int8-tensor", "filters-30")
"""The forms that are looked at beside the full model; those of photos in int4 too."""


SAME = 0.01
"""How far the accuracies of one net may be apart that two machines trained."""


def task_of(facts: dict, number: int) -> Task:
    """The task of a reference model: as many classes as planned, drawn from the data set's."""
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


def _only(split: Split, kept: torch.Tensor) -> Split:
    assert split.y is not None
    matches = split.y[:, None] == kept
    return Split(split.x[matches.any(1)], matches[matches.any(1)].int().argmax(1))


def started(facts: dict, task: Task, number: int) -> Artifact:
    """The net before training: other people's weights, with a new last layer where the task is another; or fresh."""
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
    if name in NETS:
        return from_module(NETS[name](shape, task.num_classes), shape=shape)
    architecture = ARCHITECTURES[name]
    net = Normalized(architecture.build(task.num_classes), architecture.mean, architecture.std)
    return replace(from_module(net, shape=shape), arch=name)


def trained(facts: dict, task: Task, number: int) -> Artifact:
    artifact = started(facts, task, number)
    fit(
        artifact.module,
        task.split("train").sample(facts["samples"], seed=number),
        Recipe(**facts["recipe"]),
        seed=number,
    )
    return artifact.with_module(artifact.module)


def measure(number: int) -> dict:
    """Train one reference model and score it: facts, scores and targets; no scores where it learned too little."""
    facts = plan(number)
    task = task_of(facts, number)
    start = time.perf_counter()
    artifact = trained(facts, task, number)
    facts["train_seconds"] = time.perf_counter() - start
    test = task.split("test").sample(1000, seed=0)
    assert test.y is not None
    with torch.no_grad():
        facts["accuracy"] = float((artifact.module(test.x).argmax(1) == test.y).float().mean())
    return facts if facts["accuracy"] < MIN_ACCURACY else facts | scored(artifact, task, number)


def measure_beside(number: int, forms: tuple[str, ...], nets: Path) -> dict:
    """The same for a model that is known, on the tests that look at ``forms`` beside the full model."""
    artifact, task = again(number, nets)
    found = scored(artifact, task, number, ("full", *forms), (CompressionGap(),))
    before = load_models("null_models")[f"{number:03d}"]["accuracy"]
    if abs(found["accuracy"] - before) > SAME:
        raise UnusableInput(
            f"trained anew, it is right on {found['accuracy']:.4f}, and was on {before:.4f}: another net"
        )
    return found


def again(number: int, nets: Path) -> tuple[Artifact, Task]:
    """A model that is known: out of the folder ``nets``, else trained anew and put there."""
    facts, path = plan(number), nets / f"{number:03d}.safetensors"
    task = task_of(facts, number)
    if path.exists():
        artifact = started(facts, task, number)
        artifact.module.load_state_dict(load_file(path))
    else:
        artifact = trained(facts, task, number)
        nets.mkdir(exist_ok=True)
        save_file({name: value.contiguous() for name, value in artifact.module.state_dict().items()}, path)
    return artifact.with_module(artifact.module), task


def scored(
    artifact: Artifact,
    task: Task,
    number: int,
    forms: tuple[str, ...] = DEFAULT,
    detectors: tuple[Detector, ...] | None = None,
) -> dict:
    with eval_mode(artifact.module):
        inputs = describe(artifact, clean_samples(task, artifact, seed=number), None, seed=number)
        found = run_tests(inputs, plan_audit(inputs.artifact, forms, detectors, None), RunContext(number))
    return {
        "scores": {test: score.value for test, score in scores_of(found.findings).items()},
        "targets": {f"{f.variant}/{f.detector}": f.target for f in found.findings},
        "accuracy": found.variants[0].accuracy,
        "agreement": {form.name: form.agreement for form in found.variants},
        "seconds": {f"{f.variant}/{f.detector}": round(f.seconds, 2) for f in found.findings},
    }


@dataclass(frozen=True)
class ReferenceJob:
    """One reference model to be made and scored, for the bench's engine."""

    kind: ClassVar[str] = "reference"

    number: int
    beside: tuple[str, ...] = ()  # only the tests of these forms beside the full model

    @property
    def key(self) -> str:
        made = (*self.beside, repr(WINDOW_BUDGET)) if self.beside else ()
        return key_of([__version__, torch.__version__, self.number, plan(self.number), *made])

    def needs(self) -> tuple[ReferenceJob, ...]:
        return ()

    def about(self) -> dict[str, int]:
        return {"number": self.number}

    def __str__(self) -> str:
        return f"reference model {self.number}"


def work(job: ReferenceJob, blobs: str) -> Outcome:
    number, forms = job.number, job.beside
    return run_guarded(lambda: measure_beside(number, forms, Path(blobs)) if forms else measure(number))


def new_ones(kind: str) -> list[ReferenceJob]:
    known = load_models("null_models")
    return [ReferenceJob(number) for number in NUMBERS[kind] if f"{number:03d}" not in known]


def known_ones() -> list[ReferenceJob]:
    """Models that learned their task well and lack scores of forms beside the full model that are not broken.

    All on photos, and as many on each other kind of data as it takes for models on those to be judged.
    """
    known = {number: model for number, model in load_models("null_models").items() if model["accuracy"] >= WELL_TRAINED}
    by_family: dict[str, list[str]] = {}
    for number, model in known.items():
        by_family.setdefault(FAMILIES[model["kind"].split("-")[0]], []).append(number)
    by_family = {
        family: numbers[: None if family == PHOTOS else MIN_FAMILY_SIZE] for family, numbers in by_family.items()
    }
    missing = {
        number: _missing(known[number], (*WITH_GAPS, "int4") if family == PHOTOS else WITH_GAPS)
        for family in sorted(by_family, key=lambda family: family != PHOTOS)
        for number in by_family[family]
    }
    return [ReferenceJob(int(number), forms) for number, forms in missing.items() if forms]


def _missing(model: dict, forms: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``forms`` that have no score yet, and are not known to be broken or not to exist."""
    agreement = {form: value or 0.0 for form, value in model.get("agreement", {}).items()}
    return tuple(
        form
        for form in forms
        if f"{form}/{CompressionGap.name}" not in model["scores"] and 1 - agreement.get(form, 1.0) <= MAX_DISAGREEMENT
    )


def run(store: Path, jobs: list[ReferenceJob], processes: int) -> None:
    def show(now: driver.RunProgress) -> None:
        print(f"{now.done} of {now.total}: {now.last}", flush=True)

    by_key = {job.key: job for job in jobs}
    driver.run(by_key, Store(store), LocalExecutor(processes), blobs=str(store / "nets"), work=work, progress=show)


def merge(store: Path) -> None:
    """All scored models that learned their task, those of earlier sessions too, as the package's null."""
    details = load_models("null_models")
    with closing(open_existing(store)) as records:
        for record in records.records():
            if record.state == "done" and "scores" in (record.result or {}):  # of models that learned their task
                name = f"{record.about['number']:03d}"
                details[name] = _together(details.get(name, {}), record.result)
    publish(dict(sorted(details.items())))


def publish(details: dict[str, dict]) -> None:
    """Writes the package's null, and the rows that it is made from beside the other results."""
    models = tuple(reference(int(number), model) for number, model in details.items())
    target = Path(__file__).resolve().parents[2] / "src/assay/calibration/shipped/images.json"
    target.parent.mkdir(exist_ok=True)
    made = origin_of_run()
    description = (
        f"{len(models)} clean nets (CIFAR-style ResNets, plain and ConvNeXt-like ones) on CIFAR-10, parts of CIFAR-10, "
        "CIFAR-100 and GTSRB, drawn signs and digits, trained or fine-tuned by recipes drawn at random "
        f"(benchmarks/run.py null_images; {made['date']}, assay {made['assay']} at {made['commit']}, torch {made['torch']})"
    )
    file.save(NullDistribution("images", description, models, FEWEST), target)
    save_result("null_models", {"models": details})
    print(len(models), "models ->", target)


def _together(known: dict, found: dict) -> dict:
    """A row with what was scored later put beside what was scored before."""
    tables = {name: {**known.get(name, {}), **part} for name, part in found.items() if isinstance(part, dict)}
    return {**known, **found, **tables}


def reference(number: int, model: dict) -> CleanReferenceModel:
    """One row of the null."""
    clean = task_of(model, number).split("calibration").sample(MAX_SAMPLES, seed=number)
    family = FAMILIES[model["kind"].split("-")[0]]
    scores = {test: Score(value, model["targets"][test]) for test, value in model["scores"].items()}
    return CleanReferenceModel(scores, origin(model), model["accuracy"], family, data_profile(clean.x) or ())


def origin(model: dict) -> str:
    """One line on where a reference model comes from."""
    recipe = " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in model["recipe"].items()
    )
    name = f"resnet{model.get('depth')}-cifar"
    return (
        f"{model['kind']} {model['classes']} classes, {model['start']} {model.get('net') or name}, "
        f"accuracy {model['accuracy']:.3f}, {recipe}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, store, *rest = sys.argv[1:]
    if command == "merge":
        merge(Path(store))
    elif command == "beside":
        run(Path(store), known_ones(), int(rest[0]) if rest else 2)
    else:
        run(Path(store), new_ones(rest[0]), int(rest[1]) if rest[1:] else 2)
