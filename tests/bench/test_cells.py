"""Keys and needs: equal work has one key, and everything that a result depends on changes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.bench_specs import SMALL

from assay.bench.cells import Cell, as_planted, clean_twin, entries, with_needs
from assay.bench.spec import Method, parse

SPEC = parse(SMALL)


def test_the_matrix_is_complete() -> None:
    found = list(entries(SPEC))
    models = len(SPEC.seeds) * len(SPEC.chains) * len(SPEC.attacks)
    assert len(found) == models * (1 + len(SPEC.detectors) + len(SPEC.mitigations))
    assert len({entry.cell.key for entry in found}) == len(found)


def test_a_file_for_onnx_runtime_is_measured_and_tested_but_not_mitigated() -> None:
    spec = replace(SPEC, chains={"int8": (Method("attack"), Method("int8"))})
    assert {entry.cell.kind for entry in entries(spec)} == {"measure", "detect"}


def test_shared_prefixes_are_built_once() -> None:
    cells = with_needs([entry.cell for entry in entries(SPEC)])
    builds = [cell for cell in cells.values() if cell.kind == "build"]
    prefixes = {(cell.seed, cell.steps) for cell in builds}
    assert len(builds) == len(prefixes)
    train = Method("train")
    assert sum(cell.steps == (train,) for cell in builds) == len(SPEC.seeds)


def test_needs_come_first() -> None:
    cells = with_needs([entry.cell for entry in entries(SPEC)])
    order = list(cells)
    for key, cell in cells.items():
        assert all(order.index(need.key) < order.index(key) for need in cell.needs())


def test_the_clean_twin_is_the_control_of_the_same_recipe() -> None:
    corner = next(entry.cell for entry in entries(SPEC) if entry.attack == "corner" and entry.chain == "shipped")
    twin = clean_twin(corner.steps)
    assert twin == (Method("train"), Method("none", ("recipe.epochs=3",)), Method("prune-magnitude", ("rate=0.5",)))
    assert Cell("build", corner.task, twin, corner.seed) in corner.needs()


def test_an_attack_is_judged_where_it_was_planted() -> None:
    corner = next(entry.cell for entry in entries(SPEC) if entry.attack == "corner" and entry.chain == "shipped")
    assert as_planted(corner.steps) == corner.steps[:2]
    assert as_planted(clean_twin(corner.steps)) == clean_twin(corner.steps)
    assert clean_twin(corner.steps) != corner.steps
    assert [corner.is_clean, Cell("build", corner.task, clean_twin(corner.steps), 0).is_clean] == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"method": "random-score"},
        {"samples": 3},
        {"steps": (Method("badnets", ("ratio=0.2",)),)},
        {"task": replace(SPEC.tasks[0], data="signs:7")},
        {"task": replace(SPEC.tasks[0], limit=None)},
        {"task": replace(SPEC.tasks[0], start="model.safetensors")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_result_depends_on_changes_the_key(change: dict[str, object]) -> None:
    cell = Cell("detect", SPEC.tasks[0], (Method("badnets"),), 0, method="patch-scan", samples=256)
    assert replace(cell, **change).key != cell.key


def test_what_the_spec_calls_things_does_not() -> None:
    cell = Cell("mitigate", SPEC.tasks[0], (Method("badnets"),), 0, method="tuned", repair=(Method("fine-tune"),))
    assert replace(cell, method="another name").key == cell.key
    assert replace(cell, task=replace(cell.task, name="another name")).key == cell.key


def test_the_recipe_of_a_task_is_that_of_its_attacks_and_of_their_control() -> None:
    spec = replace(SPEC, tasks=(replace(SPEC.tasks[0], recipe=("recipe.epochs=5", "recipe.lr=0.2")),))
    planted = {entry.attack: entry.cell.steps[0] for entry in entries(spec) if entry.chain == "scratch"}
    assert planted["none"].settings == ("recipe.epochs=5", "recipe.lr=0.2")
    assert {"recipe.epochs=3", "recipe.lr=0.2"} < set(planted["corner"].settings)
    written_out = replace(spec, attacks=planted, tasks=SPEC.tasks)
    keys = [[entry.cell.key for entry in entries(each) if entry.chain == "scratch"] for each in (spec, written_out)]
    assert keys[0] == keys[1]


def test_other_reference_scores_make_another_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    audit, scan = (Cell("detect", SPEC.tasks[0], (Method("none"),), 0, method=name) for name in ("audit", "patch-scan"))
    before = audit.key, scan.key
    monkeypatch.setattr("assay.bench.cells.digest_of_builtin", lambda *, encoders: f"another {encoders}")
    after = replace(audit).key, replace(scan).key
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
