"""Initial state of a task: an untrained model or a file, its data, and changes of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from assay import formats
from assay.bench.initial import digests, initial_build, resolve_paths
from assay.bench.job import Outcome
from assay.bench.spec import Spec, TaskSpec
from assay.bench.spec_reader import parse
from assay.bench.store import Store
from assay.cli import main
from assay.core.errors import UnusableInput
from assay.formats.untrained import untrained_model

ARCH = "resnet8-cifar"


def spec_with(task: dict[str, Any], attacks: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": "initial",
        "tasks": {"signs": {"data": "signs:3", "limit": 40, **task}},
        "seeds": [0],
        "attacks": attacks or {"given": {"none": {"recipe": {"epochs": 0}}}},
        "chains": {"alone": ["attack"]},
    }


def read(document: dict[str, Any]) -> Spec:
    return parse(document)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return formats.save(untrained_model(ARCH, 3, seed=7), tmp_path / "given")


def test_task_starts_with_weights_of_file(given: Path) -> None:
    build, _ = initial_build(TaskSpec("t", "signs:3", None, 40, str(given)), seed=0)
    assert build.artifact.digest == formats.load(given).digest
    assert build.artifact.num_classes == build.task.num_classes == 3


@pytest.mark.slow
def test_given_model_is_measured_without_training(given: Path, tmp_path: Path) -> None:
    path, store = tmp_path / "spec.yaml", tmp_path / "store"
    path.write_text(yaml.safe_dump(spec_with({"start": str(given)})))
    assert main(["bench", "run", str(path), "--store", str(store), "--workers", "1"]) == 0
    (built,) = (record for record in Store(store).records() if record.kind == "build")
    assert built.result is not None
    assert built.result["stages_run"] == 1
    formats.save(untrained_model(ARCH, 3, seed=8), given.parent)  # other weights under the same name
    assert main(["bench", "run", str(path), "--store", str(store), "--workers", "1"]) == 2


def test_changed_file_under_same_name_is_refused(given: Path, tmp_path: Path) -> None:
    spec = read(spec_with({"start": str(given)}))
    store = Store(tmp_path / "store")
    store.check_inputs({"another": "run without results"})
    store.check_inputs(digests(spec))
    store.add([("key", "build", {})])
    store.claim("key")
    store.finish("key", Outcome("done", {}))
    store.check_inputs(digests(spec))
    formats.save(untrained_model(ARCH, 3, seed=8), given.parent)
    with pytest.raises(UnusableInput, match="made from other content than is there now"):
        store.check_inputs(digests(spec))


@pytest.mark.parametrize(
    ("task", "attacks", "message"),
    [
        ({"start": "/no/such/model.safetensors"}, None, "tasks.signs: no such model"),
        ({"arch": ARCH, "data": "/no/such"}, None, "tasks.signs: no such data: /no/such"),
        (
            {"arch": ARCH},
            {"far": {"badnets": {"target": 3}}},
            r"attacks.far on tasks.signs: .*target class in \[0, 3\)",
        ),
        ({"arch": ARCH}, {"big": {"badnets": {"patch": {"size": 40}}}}, "attacks.big on tasks.signs: .*40"),
    ],
    ids=["no model", "no data", "no such class", "too large"],
)
def test_attacks_and_data_that_do_not_fit_are_refused_before_run(
    task: dict[str, Any], attacks: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(UnusableInput, match=message):
        digests(read(spec_with(task, attacks)))


def test_resolve_paths_keeps_names_of_generated_data(tmp_path: Path) -> None:
    for name in ("digits", "images"):
        (tmp_path / name).mkdir()
    generated, read = (resolve_paths(TaskSpec("t", name, ARCH), str(tmp_path)) for name in ("digits", "images"))
    assert (generated.data, read.data) == ("digits", str(tmp_path / "images"))
    assert resolve_paths(TaskSpec("t", "owner/name", ARCH, start="owner/net"), str(tmp_path)).start == "owner/net"


def test_model_with_other_classes_is_refused(given: Path) -> None:
    with pytest.raises(UnusableInput, match="classes"):
        digests(read(spec_with({"start": str(given), "data": "signs:5"})))
