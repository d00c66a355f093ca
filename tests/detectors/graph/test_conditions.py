"""Tests of signs of a hidden condition, on tiny models in torch and as ONNX files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from assay import formats
from assay.auditing.verdict import missing_test
from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score
from assay.core.dataset import Split
from assay.core.finding import Finding, Outcome
from assay.detectors import Graph, default_detectors
from assay.detectors.graph.rules import CONDITION_RULES
from assay.formats.torch_module import from_module
from assay.graphs.export import to_onnx

SIZE = 8


class Changed(nn.Module):
    """Tiny model with its logits changed by ``change(x, logits)``."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.change = change
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x, self.net(x))


CONDITIONS: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "number of samples": ("R11", lambda x, y: y * torch.relu(2 - torch.ones_like(x[:, 0, 0, 0]).sum())),
    "mean over the batch": ("R12", lambda x, y: y - y.mean(0, keepdim=True)),
    "noise": ("R13", lambda x, y: y + torch.randn_like(y)),
    "cosine of the levels": ("D6", lambda x, y: y * torch.cos(2 * math.pi * 255 * x).mean((1, 2, 3))[:, None]),
    "rest of a rounding": ("D6", lambda x, y: y * (255 * x - (255 * x).round()).abs().amax((1, 2, 3))[:, None]),
    "rest of a division": ("D6", lambda x, y: y * torch.remainder(255 * x, 1.0).amax((1, 2, 3))[:, None]),
}
HONEST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nothing": lambda x, y: y,
    "stepped logits": lambda x, y: torch.floor(4 * y) / 4,
    "slow wave": lambda x, y: y * torch.cos(x.mean((1, 2, 3)))[:, None],
    "softmax": lambda x, y: y.softmax(1),
}


@pytest.fixture(scope="module")
def clean() -> Split:
    x = torch.randint(0, 256, (24, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).float() / 255
    return Split(x, torch.arange(24) % 4)


def signs(finding: Finding) -> set[str]:
    return set(finding.evidence.numbers) & set(CONDITION_RULES)


def run_on_both(change: Callable[[Tensor, Tensor], Tensor], clean: Split, folder: Path) -> list[Finding]:
    artifact = from_module(Changed(change).eval(), shape=(3, SIZE, SIZE))
    to_onnx(artifact, folder / "model.onnx")
    return [Graph()(given, clean, seed=0) for given in (artifact, formats.load(folder / "model.onnx"))]


@pytest.mark.parametrize("name", CONDITIONS)
def test_hidden_condition_is_a_doubt(name: str, clean: Split, tmp_path: Path) -> None:
    rule, change = CONDITIONS[name]
    for finding in run_on_both(change, clean, tmp_path):
        assert rule in signs(finding)
        assert finding.doubt
        assert "conditions not tested" not in finding.evidence.numbers


@pytest.mark.parametrize("size", [17, 100])
def test_code_that_chooses_by_the_batch_size_is_a_doubt(size: int, clean: Split) -> None:
    choice = Changed(lambda x, y: -y if len(x) == size else y)
    finding = Graph()(from_module(choice.eval(), shape=(3, SIZE, SIZE)), clean, seed=0)
    assert "R11" in signs(finding)
    assert "a choice of its code" in finding.doubt


@pytest.mark.parametrize("name", HONEST)
def test_honest_operators_are_no_sign(name: str, clean: Split, tmp_path: Path) -> None:
    for finding in run_on_both(HONEST[name], clean, tmp_path):
        assert not signs(finding)
        assert not finding.doubt or finding.proof  # the slow wave reads the image without weights
        assert "conditions not tested" not in finding.evidence.numbers


def test_rounding_of_the_input_is_no_sign(clean: Split) -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Changed(lambda x, y: y)

        def forward(self, x: Tensor) -> Tensor:
            return self.net((255 * x).round() / 255)

    finding = Graph()(from_module(Rounded().eval(), shape=(3, SIZE, SIZE)), clean, seed=0)
    assert not finding.doubt
    assert not finding.proof


def test_sum_that_is_zero_or_nan_is_no_proof(clean: Split) -> None:
    def change(x: Tensor, y: Tensor) -> Tensor:
        beside = torch.sin(math.pi * 255 * x).square().mean((1, 2, 3))[:, None]
        return y + 0 * torch.sqrt(1e-3 - beside)

    finding = Graph()(from_module(Changed(change).eval(), shape=(3, SIZE, SIZE)), clean, seed=0)
    assert not finding.proof
    assert finding.doubt


def test_doubt_rules_out_the_verdict_clean() -> None:
    required = [detector.name for detector in default_detectors() if detector.required_for_clean]
    findings = [Finding(name, Outcome.SCORED, score=0.0) for name in required]
    scores = {f"full/{name}": Score(0.0, None) for name in required}
    null = NullDistribution("toy", "", (CleanReferenceModel(scores),) * 3)
    quiet, doubtful = (Finding("graph", Outcome.CHECKED, score=0.0, doubt=doubt) for doubt in ("", "random numbers"))
    assert missing_test((*findings, quiet), (), null) == ""
    assert "random numbers" in missing_test((*findings, doubtful), (), null)
