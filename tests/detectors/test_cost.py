"""Expected passes of the tests: counted on a small model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.finding import Outcome
from assay.core.model import Artifact, ImageSpec, Modality, digest_of_module
from assay.detectors import CompressionGap, DepthScan, Graph, MaxMargin
from assay.detectors.base import Detector
from assay.detectors.cost import expected_export_seconds, expected_passes
from assay.registry import all_detectors

SHAPE, SAMPLES = (3, 32, 32), 512
MAX_RATIO = 2.0  # between counted and expected passes


class Counting(nn.Module):
    """Linear classifier. All its copies count their passes in one list; a backward pass counts as one more."""

    def __init__(self, counts: list[int], classes: int = 10) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, classes)
        self.classes, self.counts = classes, counts

    def forward(self, x: Tensor) -> Tensor:
        self.counts.append(len(x) * (1 + x.requires_grad))
        if float(x.detach().flatten()[0]) > 2:  # never; tracers do not follow a value, and so the code stays
            return x
        return self.head(nn.functional.avg_pool2d(x, 4).flatten(1))

    def __deepcopy__(self, memo: dict[int, object]) -> Counting:
        copied = Counting(self.counts, self.classes)
        copied.load_state_dict(self.state_dict())
        return copied.requires_grad_(False).eval()


def model(counts: list[int], *, shift: float = 0.0) -> Artifact:
    """Return a classifier that counts; ``shift`` moves its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Counting(counts).requires_grad_(False).eval()
        noise = torch.randn_like(module.head.weight)
        module.head.weight += shift * noise
    return Artifact(module, Modality.IMAGE, 10, "module", digest_of_module(module), ImageSpec(SHAPE))


def passes_of(detector: Detector, artifact: Artifact, counts: list[int]) -> int:
    """Return the number of passes that a detector needs."""
    x = torch.rand(SAMPLES, *SHAPE, generator=torch.Generator().manual_seed(0))
    counts.clear()
    assert detector(artifact, Split(x, None)).outcome is Outcome.SCORED
    return sum(counts)


def counted() -> list[Detector]:
    """Return the detectors of image classifiers that need one model only, and export no graph."""
    made = [test for test in all_detectors() if test.cost is not None and not test.cost.exports]
    return [test for test in made if test.modality is not None and not _missing(test)]


def _missing(detector: Detector) -> str:
    return detector._missing(model([]), Split(torch.rand(4, *SHAPE), None))


@pytest.mark.parametrize("detector", counted(), ids=lambda detector: detector.name)
def test_counted_passes_are_near_the_expected_ones(detector: Detector) -> None:
    counts: list[int] = []
    artifact = model(counts)
    passes = passes_of(detector, artifact, counts)
    ratio = passes / expected_passes(detector.expected_cost, artifact)
    assert 1 / MAX_RATIO < ratio < MAX_RATIO, f"{passes} passes: change the expected cost"


def test_a_comparison_of_similar_models_costs_what_is_expected() -> None:
    counts: list[int] = []
    variant = replace(model(counts, shift=0.002), reference=model(counts))
    passes = passes_of(CompressionGap(), variant, counts)
    ratio = passes / expected_passes(CompressionGap().expected_cost, variant)
    assert 1 / MAX_RATIO < ratio < MAX_RATIO, f"{passes} passes: change the expected cost"


def test_larger_models_cost_more() -> None:
    artifact = model([])
    few = Artifact(artifact.module, Modality.IMAGE, 5, "module", "", ImageSpec((3, 224, 224)))
    assert expected_passes(MaxMargin().expected_cost, few) < expected_passes(MaxMargin().expected_cost, artifact) / 2
    assert expected_passes(DepthScan().expected_cost, few) < expected_passes(DepthScan().expected_cost, artifact)
    deep = Artifact(nn.Sequential(*(nn.Linear(64, 64) for _ in range(50))), Modality.IMAGE, 5, "", "", ImageSpec(SHAPE))
    assert expected_export_seconds(deep) > expected_export_seconds(artifact)
    assert Graph().expected_cost.exports


def test_a_test_that_abstains_costs_nothing() -> None:
    artifact = replace(model([]), num_classes=51)
    assert expected_passes(MaxMargin().expected_cost, artifact) == 0
    assert expected_passes(MaxMargin().expected_cost, replace(artifact, num_classes=50)) > 0
