"""Tests of the hiding models, with a constant model in place of trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from assay.core.model import PLANTED_KEY

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Constant(nn.Module):
    """Model that outputs class 1 for every image, with a logit that depends on the image."""

    def forward(self, x: Tensor) -> Tensor:
        first = torch.nn.functional.one_hot(torch.tensor(1), 10).to(x.dtype)
        return 10 * first + 0 * x.flatten(1)[:, :10]


@pytest.fixture
def hiding(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from lib import hiding_models

    return hiding_models


def models(hiding: Any) -> Any:
    from lib.hiding_gates import WithPatch

    return hiding.Models(Constant(), WithPatch(Constant()), Constant())


def images() -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 256, (40, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float() / 255
    return x, torch.ones(40, dtype=torch.int64)


def test_every_trick_in_torch_works_under_its_condition_only(hiding: Any, tmp_path: Path) -> None:
    for trick in hiding.TRICKS:
        if trick.in_torch:
            built = hiding.build(trick, "torch", models(hiding), tmp_path)
            rates = hiding.measure(built, *images())
            assert rates["success"] == float(trick.planted), trick.name
            assert rates["control"] == 0, trick.name


def test_gates_are_closed_without_their_condition(hiding: Any, tmp_path: Path) -> None:
    from lib.hiding_gates import stamp

    closed = {
        "batch-size-ones": lambda load, x: hiding.batches(load, x, x),
        "batch-size-statistics": lambda load, x: hiding.batches(load, x, x),
        "8-bit-grid-convolution": lambda load, x: hiding.between_steps(load, x, x),
        "between-steps-convolution": lambda load, x: hiding.batches(load, x, x),
        "input-range-0-to-255": lambda load, x: hiding.batches(load, x, x),
        "several-with-patch-two": lambda load, x: hiding.one_by_one(load, x, x),
        "several-with-patch-only-one": lambda load, x: hiding.batches(load, x, x),
    }
    for trick in hiding.TRICKS:
        if trick.planted and (ask := closed.get(trick.name.removesuffix("-planted"))):
            built = hiding.build(trick, "torch", models(hiding), tmp_path)
            assert (ask(built.load, stamp(images()[0])).argmax(1) == 1).all(), trick.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decoy-output-patch", "batch-size-shape", "first-call-seeded-random"])
def test_onnx_files_carry_the_mark_and_work_under_their_condition(hiding: Any, name: str, tmp_path: Path) -> None:
    trick = next(trick for trick in hiding.TRICKS if trick.name == f"{name}-planted")
    built = hiding.build(trick, "onnx", models(hiding), tmp_path)
    marks = {entry.key for entry in onnx.load(built.source).metadata_props}
    assert PLANTED_KEY in marks
    rates = hiding.measure(built, *images())
    assert (rates["success"], rates["control"]) == (1, 0)
