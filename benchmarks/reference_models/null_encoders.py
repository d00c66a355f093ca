"""Clean reference encoders of the shipped null distribution of encoders.

The accurate reference models of photos (null_images.py), cut at their features, each with images of CIFAR-10, CIFAR-100
or GTSRB. The audit of an encoder may use other data than its training.

    python benchmarks/run.py null_encoders run STORE MODELS  # MODELS: folder of null_images.py; resumable
    python benchmarks/run.py null_encoders merge STORE       # -> shipped/encoders.json and results/null_encoders.json

Rows in results/null_encoders.json are kept and not made again.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from lib import commands
from lib.paths import SHARED, SHIPPED
from lib.results import load_models, save_result, software_and_date

from assay._version import __version__
from assay.auditing.calibrate import Calibration, score_clean_model
from assay.bench import driver
from assay.bench.executors import LocalExecutor
from assay.bench.guard import run_guarded
from assay.bench.job import Outcome, key_of
from assay.bench.records import open_existing
from assay.bench.store import Store
from assay.calibration import file
from assay.calibration.null import MIN_FAMILY_SIZE, MIN_REFERENCE_MODELS, NullDistribution
from assay.calibration.reference import WELL_TRAINED, CleanReferenceModel, Score
from assay.core.dataset import Task
from assay.core.model import ImageSpec
from assay.data import load as load_data
from assay.detectors.encoder.cluster_probe import CLUSTERS
from assay.detectors.encoder.embedding_collapse import EmbeddingCollapse, EmbeddingCollapsePatch
from assay.formats.feature_extractor import to_feature_extractor
from assay.inversion.families import LinfFamily
from reference_models.null_images import FAMILIES, PHOTOS, plan, retrain

DATA = ("cifar10", "cifar100", "gtsrb")
VARIANTS = ("full",)


@lru_cache
def rows() -> list[tuple[int, str]]:
    """Return pairs of reference model and data.

    First each model once, with the data sets in turn. Then the smallest models again, until a verdict has enough
    encoders with images of objects, and with images of signs.
    """
    scored = load_models("null_models")
    photos = (n for n, model in scored.items() if FAMILIES[model["kind"].split("-")[0]] == PHOTOS)
    numbers = sorted((int(n) for n in photos if scored[n]["accuracy"] >= WELL_TRAINED), key=lambda n: plan(n)["depth"])
    first, rest = numbers[:MIN_REFERENCE_MODELS], numbers[MIN_REFERENCE_MODELS:]
    pairs = [(number, DATA[turn % len(DATA)]) for turn, number in enumerate(first)]
    signs_only = [number for number, data in pairs if data == "gtsrb"]
    more = [(number, DATA[turn % 2]) for turn, number in enumerate([*signs_only, *rest])]
    objects = sum(data != "gtsrb" for _, data in pairs)
    signs = [(number, "gtsrb") for number, data in pairs if data != "gtsrb"]
    return [*pairs, *more[: MIN_REFERENCE_MODELS - objects], *signs[: MIN_FAMILY_SIZE - (len(pairs) - objects)]]


def name_of(number: int, data: str) -> str:
    """Return the name of a row in the result file."""
    return f"{number:03d} {data}"


@lru_cache
def load_task(name: str) -> Task:
    """Load a data set."""
    return load_data(str(SHARED / "data" / name), ImageSpec((3, 32, 32)), limit=2048)


def measure(number: int, name: str, models: Path) -> dict:
    """Score one encoder."""
    (artifact, _), family = retrain(number, models), FAMILIES[name]
    start = time.perf_counter()
    settings = Calibration(VARIANTS, seed=number)
    scored = score_clean_model(to_feature_extractor(artifact), load_task(name), settings, family=family)
    return {
        "kind": plan(number)["kind"],
        "arch": artifact.arch,
        "data": name,
        "family": family,
        "likeness": scored.data,
        "scores": {test: score.value for test, score in scored.scores.items()},
        "targets": {test: score.target for test, score in scored.scores.items()},
        "seconds": round(time.perf_counter() - start, 1),
    }


@dataclass(frozen=True)
class EncoderJob:
    """Job of the bench engine: cut and score one reference model."""

    kind: ClassVar[str] = "encoder"

    number: int
    data: str

    @property
    def key(self) -> str:
        settings = repr((EmbeddingCollapse.search_budget, EmbeddingCollapsePatch.search_budget, LinfFamily.bound))
        data = (self.data, FAMILIES[self.data])
        return key_of([__version__, torch.__version__, self.number, plan(self.number), data, settings])

    def needs(self) -> tuple[EncoderJob, ...]:
        return ()

    def about(self) -> dict[str, Any]:
        return {"number": self.number, "data": self.data}

    def __str__(self) -> str:
        return f"reference encoder {self.number} with {self.data}"


def work(job: EncoderJob, blobs: str) -> Outcome:
    """Run one job."""
    return run_guarded(lambda: measure(job.number, job.data, Path(blobs)))


def run(store: Path, models: Path, processes: int) -> None:
    """Score the missing encoders."""

    def show(now: driver.RunProgress) -> None:
        print(f"{now.done} of {now.total}: {now.last}", flush=True)

    known = load_models("null_encoders")
    by_key = {job.key: job for job in (EncoderJob(*row) for row in rows() if name_of(*row) not in known)}
    driver.run(by_key, Store(store), LocalExecutor(processes), blobs=str(models), work=work, progress=show)


def merge(store: Path) -> None:
    """Add the scored encoders of a store, and publish."""
    with closing(open_existing(store)) as records:
        new = {
            name_of(record.about["number"], record.result["data"]): dict(record.result)
            for record in records.records()
            if record.state == "done" and record.result
        }
    models = {**load_models("null_encoders"), **new}
    publish(dict(sorted(models.items())))


def publish(models: dict[str, dict]) -> None:
    """Write the package's null distribution of encoders, and its rows as a result file."""
    description = (
        f"{len(models)} clean encoders (some twice): CIFAR-style ResNets, cut at their features, with images of "
        f"CIFAR-10, CIFAR-100 and GTSRB (benchmarks/run.py null_encoders; {software_and_date()})"
    )
    references = tuple(map(reference, models.values()))
    target = SHIPPED / file.ENCODERS
    file.save(NullDistribution("encoders", description, references, CLUSTERS, encoders=True), target)
    save_result("null_encoders", {"models": models})
    print(len(references), "encoders ->", target)


def reference(model: dict) -> CleanReferenceModel:
    """Return one row of the null distribution."""
    scores = {test: Score(value, model["targets"][test]) for test, value in model["scores"].items()}
    line = f"{model['kind']} {model['arch']}, cut at its features, pictures of {model['data']}"
    return CleanReferenceModel(scores, line, None, model["family"], tuple(model["likeness"]))


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    run_parser = add_command("run", run, "score the missing encoders; resumable")
    run_parser.add_argument("store", type=Path)
    run_parser.add_argument("models", type=Path)
    run_parser.add_argument("--processes", type=int, default=2)
    add_command("merge", merge, "write the null distribution").add_argument("store", type=Path)
    commands.run(command_line)
