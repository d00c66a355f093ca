"""The clean reference encoders behind the shipped null distribution of encoders.

The reference models of photos that learned their task (null_models.py), cut at their features, each with pictures of
CIFAR-10, CIFAR-100 or GTSRB: what an encoder is audited with need not be what it was trained on.

    python benchmarks/run.py null_encoders run STORE NETS [PROCESSES]  # NETS: where null_models.py keeps nets; resumable
    python benchmarks/run.py null_encoders merge STORE  # -> shipped/encoders.json and results/null_encoders.json

Rows that are in results/null_encoders.json are kept and not made again.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from lib.paths import SHARED
from lib.results import load_models, save_result
from lib.results import origin as origin_of_run

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
from reference_models.null_images import FAMILIES, PHOTOS, again, plan

DATA = ("cifar10", "cifar100", "gtsrb")
FORMS = ("full",)


@lru_cache
def rows() -> list[tuple[int, str]]:
    """Which reference model, and with which pictures: by turns first.

    Then the small ones again, until there are as many with pictures of objects, and of signs, as a verdict needs.
    """
    known = load_models("null_models")
    photos = (n for n, model in known.items() if FAMILIES[model["kind"].split("-")[0]] == PHOTOS)
    numbers = sorted((int(n) for n in photos if known[n]["accuracy"] >= WELL_TRAINED), key=lambda n: plan(n)["depth"])
    first, rest = numbers[:MIN_REFERENCE_MODELS], numbers[MIN_REFERENCE_MODELS:]
    made = [(number, DATA[turn % len(DATA)]) for turn, number in enumerate(first)]
    again_with_objects = [number for number, data in made if data == "gtsrb"]
    more = [(number, DATA[turn % 2]) for turn, number in enumerate([*again_with_objects, *rest])]
    objects = sum(data != "gtsrb" for _, data in made)
    signs = [(number, "gtsrb") for number, data in made if data != "gtsrb"]
    return [*made, *more[: MIN_REFERENCE_MODELS - objects], *signs[: MIN_FAMILY_SIZE - (len(made) - objects)]]


def name_of(number: int, data: str) -> str:
    """What a row is called among the results."""
    return f"{number:03d} {data}"


@lru_cache
def pictures(name: str) -> Task:
    return load_data(str(SHARED / "data" / name), ImageSpec((3, 32, 32)), limit=2048)


def measure(number: int, name: str, nets: Path) -> dict:
    (artifact, _), family = again(number, nets), FAMILIES[name]
    start = time.perf_counter()
    settings = Calibration(FORMS, seed=number)
    found = score_clean_model(to_feature_extractor(artifact), pictures(name), settings, family=family)
    return {
        "kind": plan(number)["kind"],
        "arch": artifact.arch,
        "data": name,
        "family": family,
        "likeness": found.data,
        "scores": {test: score.value for test, score in found.scores.items()},
        "targets": {test: score.target for test, score in found.scores.items()},
        "seconds": round(time.perf_counter() - start, 1),
    }


@dataclass(frozen=True)
class EncoderJob:
    """One reference model to be cut and scored, for the bench's engine."""

    kind: ClassVar[str] = "encoder"

    number: int
    data: str

    @property
    def key(self) -> str:
        efforts = repr((EmbeddingCollapse.search_budget, EmbeddingCollapsePatch.search_budget, LinfFamily.bound))
        data = (self.data, FAMILIES[self.data])
        return key_of([__version__, torch.__version__, self.number, plan(self.number), data, efforts])

    def needs(self) -> tuple[EncoderJob, ...]:
        return ()

    def about(self) -> dict[str, Any]:
        return {"number": self.number, "data": self.data}

    def __str__(self) -> str:
        return f"reference encoder {self.number} with {self.data}"


def work(job: EncoderJob, blobs: str) -> Outcome:
    return run_guarded(lambda: measure(job.number, job.data, Path(blobs)))


def run(store: Path, nets: Path, processes: int) -> None:
    def show(now: driver.RunProgress) -> None:
        print(f"{now.done} of {now.total}: {now.last}", flush=True)

    known = load_models("null_encoders")
    by_key = {job.key: job for job in (EncoderJob(*row) for row in rows() if name_of(*row) not in known)}
    driver.run(by_key, Store(store), LocalExecutor(processes), blobs=str(nets), work=work, progress=show)


def merge(store: Path) -> None:
    with closing(open_existing(store)) as records:
        found = {
            name_of(record.about["number"], record.result["data"]): record.result
            for record in records.records()
            if record.state == "done" and record.result
        }
    models = {**load_models("null_encoders"), **found}
    publish(dict(sorted(models.items())))


def publish(models: dict[str, dict]) -> None:
    """Writes the package's null of encoders, and the rows that it is made from beside the other results."""
    made = origin_of_run()
    description = (
        f"{len(models)} clean encoders (some twice): CIFAR-style ResNets, cut at their features, with pictures of "
        f"CIFAR-10, CIFAR-100 and GTSRB (benchmarks/run.py null_encoders; {made['date']}, assay {made['assay']} at "
        f"{made['commit']}, torch {made['torch']})"
    )
    references = tuple(map(reference, models.values()))
    target = Path(__file__).resolve().parents[2] / "src/assay/calibration/shipped" / file.ENCODERS
    file.save(NullDistribution("encoders", description, references, CLUSTERS, encoders=True), target)
    save_result("null_encoders", {"models": models})
    print(len(references), "encoders ->", target)


def reference(model: dict) -> CleanReferenceModel:
    """One row of the null."""
    scores = {test: Score(value, model["targets"][test]) for test, value in model["scores"].items()}
    line = f"{model['kind']} {model['arch']}, cut at its features, pictures of {model['data']}"
    return CleanReferenceModel(scores, line, None, model["family"], tuple(model["likeness"]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, store, *rest = sys.argv[1:]
    if command == "merge":
        merge(Path(store))
    else:
        run(Path(store), Path(rest[0]), int(rest[1]) if rest[1:] else 2)
