"""Tests without usable outputs or gradients abstain; honest models are measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.tiny import tiny_build
from support.toys import SHAPE, artifact_of, toy
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Unmeasurable
from assay.core.finding import Finding, Outcome
from assay.core.model import Artifact, digest_of_module
from assay.detectors import BlendScan, MaxMargin, NeuralCleanse, UniversalPerturbation
from assay.detectors.base import Detector
from assay.detectors.margin_units import in_margin_units
from assay.detectors.measurable import require_measurable
from assay.stages.quantize import simulate_int8


class Changed(nn.Module):
    """A model with changed logits or inputs."""

    def __init__(
        self,
        net: nn.Module,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
        before: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


def off_grid_is_nan(x: Tensor) -> Tensor:
    """Return the images; NaN for an image that is not on whole steps of 1/255."""
    off = ((255 * x - (255 * x).round()).abs() > 0.01).flatten(1).any(1)
    return torch.where(off[:, None, None, None], torch.nan, x)


def fine_steps(x: Tensor) -> Tensor:
    """Return nearly the same values, without a gradient."""
    return (1e4 * x).round() / 1e4


def without_gradient_on_the_left(x: Tensor) -> Tensor:
    half = x.shape[3] // 2
    return torch.cat([fine_steps(x[..., :half]), x[..., half:]], dim=3)


def leak_of_a_thousandth(logits: Tensor) -> Tensor:
    """Return nearly the same logits, with a thousandth of their gradient."""
    return fine_steps(0.999 * logits) + 1e-3 * logits


WITHOUT_GRADIENTS = {
    "floor": ({"after": lambda z: (4 * z).floor() / 4}, "zero"),
    "sign": ({"before": lambda x: (255 * x).round() / 255}, "zero"),
    "masked pixels": ({"before": without_gradient_on_the_left}, "pixels"),
    "leaked": ({"after": leak_of_a_thousandth}, "predict"),
    "steep": ({"before": lambda x: x + 0.02 * (3e4 * x).sin()}, "gradients"),
}
WITHOUT_OUTPUTS = {
    "saturated": ({"after": lambda z: (1e6 * (z - z.amax(1, keepdim=True))).exp()}, "few values"),
    "one-hot": ({"after": lambda z: nn.functional.one_hot(z.argmax(1), 4).float()}, "few values"),
    "nan": ({"before": off_grid_is_nan}, "NaN"),
    "infinite scale": ({"after": lambda z: 1e9 * z}, "scaling"),
    "tiny scale": ({"after": lambda z: 1e-9 * z}, "scaling"),
    "random": ({"after": lambda z: z + torch.randn(z.shape)}, "two runs"),
}


def subject(after_before: dict[str, Callable[[Tensor], Tensor]]) -> tuple[Artifact, Split]:
    net, x, y = toy(4, None)
    x = (255 * x).round() / 255
    return artifact_of(Changed(net, **after_before).eval(), 4), Split(x, y)


def check(artifact: Artifact, clean: Split, *, gradients: bool = True) -> None:
    scaled = in_margin_units(artifact, clean)
    require_measurable(scaled, clean, digest=digest_of_module(artifact.module), gradients=gradients)


@pytest.mark.parametrize("kind", WITHOUT_GRADIENTS)
def test_require_measurable_without_gradients_raises_with_the_reason(kind: str) -> None:
    changes, word = WITHOUT_GRADIENTS[kind]
    with pytest.raises(Unmeasurable, match=word):
        check(*subject(changes))


@pytest.mark.parametrize("kind", WITHOUT_OUTPUTS)
def test_require_measurable_without_outputs_raises_with_the_reason(kind: str) -> None:
    changes, word = WITHOUT_OUTPUTS[kind]
    with pytest.raises(Unmeasurable, match=word):
        check(*subject(changes), gradients=False)


def test_require_measurable_honest_models_pass() -> None:
    net, x, y = toy(4, None)
    build = tiny_build()
    for artifact, clean in (
        (artifact_of(net, 4), Split(x, y)),
        (artifact_of(toy(4, 2)[0], 4), Split(x, y)),
        (artifact_of(Changed(net, lambda z: 1e4 * z).eval(), 4), Split(x, y)),
        (artifact_of(Changed(net, lambda z: z.softmax(1)).eval(), 4), Split(x, y)),
        (artifact_of(Changed(net, lambda z: z.detach()).eval(), 4), Split(x, y)),  # the traced graph has gradients
        (artifact_of(Changed(net, before=lambda x: x[:, :, :8, :8]).eval(), 4), Split(x, y)),
        (build.artifact, build.task.split("test")),
        (build.artifact.with_module(simulate_int8(build.artifact.module, x, per_channel=True)), Split(x, None)),
    ):
        check(artifact, clean)


def test_require_measurable_ignored_pixels_pass() -> None:
    """A model may leave out pixels. They change nothing, so no search misses them."""
    check(*subject({"before": lambda x: torch.cat([x[..., :7], torch.zeros_like(x[..., 7:])], dim=3)}))


def test_require_measurable_without_samples_checks_nothing() -> None:
    artifact, _ = subject({"after": lambda z: z.detach()})
    check(artifact, Split(torch.zeros(0, *SHAPE), None))


@pytest.mark.parametrize("detector", [NeuralCleanse(), UniversalPerturbation(), MaxMargin()], ids=lambda d: d.name)
def test_search_on_stepped_logits_abstains(detector: Detector) -> None:
    finding = run(detector, {"after": lambda z: (4 * z).floor() / 4})
    assert (finding.outcome, finding.unmeasurable, finding.score) == (Outcome.ABSTAINED, True, None)
    assert "gradients" in finding.reason


def test_scan_on_stepped_logits_has_a_score() -> None:
    assert run(BlendScan(), {"after": lambda z: (4 * z).floor() / 4}).outcome is Outcome.SCORED


def test_scan_on_saturated_logits_abstains() -> None:
    assert run(BlendScan(), WITHOUT_OUTPUTS["one-hot"][0]).unmeasurable


def run(detector: Detector, changes: dict[str, Callable[[Tensor], Tensor]]) -> Finding:
    return detector(*subject(changes))


@pytest.mark.parametrize("detector", [NeuralCleanse()], ids=lambda d: d.name)
def test_search_into_nan_has_no_score(detector: Detector) -> None:
    """Clean and noisy images have usable outputs. The search moves into images without: it does not drop them."""
    lowest = float(toy(4, None)[1].flatten(1).std(1).min())

    def nan_of_low_contrast(x: Tensor) -> Tensor:
        pale = x.flatten(1).std(1) < 0.9 * lowest
        return torch.where(pale[:, None, None, None], torch.nan, x)

    finding = run(detector, {"before": nan_of_low_contrast})
    assert not finding.outcome.completed
    assert finding.score is None
