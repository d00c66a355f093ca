"""Small model, its task and its ONNX file for the contract tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay import formats
from assay.core.build import Build
from assay.core.dataset import Split, Task
from assay.core.model import Artifact
from assay.data.synthetic import signs
from assay.formats.untrained import untrained_model
from assay.graphs.export import to_onnx
from assay.stages.train import Recipe, Train

CLASSES = 4


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: these models are too small for two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def task() -> Task:
    return signs(CLASSES, size=16, per_class=60, seed=0)


@pytest.fixture(scope="session")
def build(task: Task) -> Build:
    """Return resnet8-cifar on 16-pixel signs, trained for 12 epochs, so that it predicts more than one class."""
    start = untrained_model("resnet8-cifar", CLASSES, class_names=task.class_names)
    start = replace(start, inputs=replace(start.inputs, shape=(3, 16, 16)))
    return Train(recipe=Recipe(epochs=12, batch_size=32, augment=False))(Build(start, task), seed=0)


@pytest.fixture(scope="session")
def clean(task: Task) -> Split:
    return task.split("calibration")


@pytest.fixture(scope="session")
def onnx_artifact(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return the same model as an ONNX file."""
    path: Path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(build.artifact, path)
    return formats.load(path)
