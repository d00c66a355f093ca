"""Cells: equal work has equal keys, and all inputs of a result change its key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.bench_specs import SMALL

from assay.bench.cells import Cell, clean_control, entries, steps_to_planting, with_needs
from assay.bench.spec import Method
from assay.bench.spec_reader import parse

SPEC = parse(SMALL)


def test_matrix_has_a_cell_for_every_combination() -> None:
    found = list(entries(SPEC))
    models = len(SPEC.seeds) * len(SPEC.chains) * len(SPEC.attacks)
    assert len(found) == models * (1 + len(SPEC.detectors) + len(SPEC.mitigations))
    assert len({entry.cell.key for entry in found}) == len(found)


def test_exported_file_is_not_mitigated() -> None:
    spec = replace(SPEC, chains={"int8": (Method("attack"), Method("int8"))})
    assert {entry.cell.kind for entry in entries(spec)} == {"measure", "detect"}


def test_common_prefixes_are_built_once() -> None:
    cells = with_needs([entry.cell for entry in entries(SPEC)])
    builds = [cell for cell in cells.values() if cell.kind == "build"]
    prefixes = {(cell.seed, cell.steps) for cell in builds}
    assert len(builds) == len(prefixes)
    train = Method("train")
    assert sum(cell.steps == (train,) for cell in builds) == len(SPEC.seeds)


def test_dependencies_come_first() -> None:
    cells = with_needs([entry.cell for entry in entries(SPEC)])
    order = list(cells)
    for key, cell in cells.items():
        assert all(order.index(need.key) < order.index(key) for need in cell.needs())


def test_clean_control_keeps_recipe_and_later_steps() -> None:
    corner = next(entry.cell for entry in entries(SPEC) if entry.attack == "corner" and entry.chain == "shipped")
    control = clean_control(corner.steps)
    assert control == (Method("train"), Method("none", ("recipe.epochs=3",)), Method("prune-magnitude", ("rate=0.5",)))
    assert Cell("build", corner.task, control, corner.seed) in corner.needs()


def test_steps_to_planting_end_with_the_attack() -> None:
    corner = next(entry.cell for entry in entries(SPEC) if entry.attack == "corner" and entry.chain == "shipped")
    assert steps_to_planting(corner.steps) == corner.steps[:2]
    assert steps_to_planting(clean_control(corner.steps)) == clean_control(corner.steps)
    assert clean_control(corner.steps) != corner.steps
    assert [corner.is_clean, Cell("build", corner.task, clean_control(corner.steps), 0).is_clean] == [False, True]


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
def test_input_of_result_changes_key(change: dict[str, object]) -> None:
    cell = Cell("detect", SPEC.tasks[0], (Method("badnets"),), 0, method="patch-scan", samples=256)
    assert replace(cell, **change).key != cell.key


def test_names_in_spec_do_not_change_key() -> None:
    cell = Cell("mitigate", SPEC.tasks[0], (Method("badnets"),), 0, method="tuned", repair=(Method("fine-tune"),))
    assert replace(cell, method="another name").key == cell.key
    assert replace(cell, task=replace(cell.task, name="another name")).key == cell.key


def test_recipe_of_task_applies_to_attacks_and_control() -> None:
    spec = replace(SPEC, tasks=(replace(SPEC.tasks[0], recipe=("recipe.epochs=5", "recipe.lr=0.2")),))
    planted = {entry.attack: entry.cell.steps[0] for entry in entries(spec) if entry.chain == "scratch"}
    assert planted["none"].settings == ("recipe.epochs=5", "recipe.lr=0.2")
    assert {"recipe.epochs=3", "recipe.lr=0.2"} < set(planted["corner"].settings)
    written_out = replace(spec, attacks=planted, tasks=SPEC.tasks)
    keys = [[entry.cell.key for entry in entries(each) if entry.chain == "scratch"] for each in (spec, written_out)]
    assert keys[0] == keys[1]


def test_other_reference_scores_change_key_of_full_audit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    audit, scan = (Cell("detect", SPEC.tasks[0], (Method("none"),), 0, method=name) for name in ("audit", "patch-scan"))
    before = audit.key, scan.key
    monkeypatch.setattr("assay.bench.cells.digest_of_shipped", lambda *, encoders: f"another {encoders}")
    after = replace(audit).key, replace(scan).key
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
