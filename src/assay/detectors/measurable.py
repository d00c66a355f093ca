"""Preconditions of all tests: outputs that respond to small changes, and gradients that lead to larger changes.

A search along zero gradients stays at its start, and a scan of constant outputs sees no trigger. Both then give a low
score, like that of a clean model. The harness therefore measures a few samples first, and the test abstains.

The comments at the limits give the values of 22 clean models and variants: ResNet-8, ResNet-20, ResNet-56 and
MobileNetV2, on signs, CIFAR-10 and ImageNet. They were measured in bfloat16, on 16 small or 4 large images. Variants
that compression broke are not among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor

from assay.core.dataset import Split
from assay.core.errors import Unmeasurable
from assay.core.model import Artifact, TextSpec
from assay.inversion.forward import forward_prepared, is_large_image
from assay.inversion.prepare import prepare
from assay.inversion.token_search import token_gradient
from assay.nn.encoders import find_cluster_probe
from assay.nn.inference import forward_batched
from assay.nn.unit_margin import UnitMargin

SAMPLES = 8
SAMPLES_OF_LARGE_IMAGES = 2  # one image of 224 x 224 pixels costs as much as 50 small ones
NOISE = 8 / 255  # standard deviation of a small change, for images in [0, 1]
STEP = 4 / 255  # of every pixel along the gradient

# Median scaled margin of the samples. Clean: 2 to 13, as the scaling sets the median of 128 samples to 10.
MARGIN_RANGE = (0.2, 200.0)
MAX_REPEAT_DIFFERENCE = 0.1  # between two answers to the same images; clean: 0
MAX_UNCHANGED = 0.5  # fraction of samples without any change of an output under noise; clean: at most 0.06, in int8
MAX_ZERO_GRADIENTS = 0.25  # fraction of samples whose gradient is exactly zero; clean: 0
# Gain of a step along the gradient, relative to a random step of the same size. Clean: at least 9.
MIN_GAIN_OVER_RANDOM = 2.0
# Gain of that step, relative to the product of gradient and step. Clean: at most 1.2; above, the gradient leaves out
# most of the function.
MAX_GAIN_OVER_PREDICTED = 20.0
MAX_UNSEEN_CHANGE = 0.5  # of an output, by the pixels whose gradient is zero on all samples; clean: 0

Forward = Callable[[Tensor], Tensor]  # inputs (N, ...) -> outputs (N, K)


def require_measurable(artifact: Artifact, clean: Split, *, digest: str, gradients: bool) -> None:
    """Check the outputs of a model, and its gradients for a search.

    Args:
        artifact: The model, in evaluation mode, with logits in margin units.
        clean: Clean samples; without any, nothing is checked.
        digest: Of the weights, which training changes.
        gradients: Whether the test follows gradients.

    Raises:
        Unmeasurable: The outputs or the gradients carry no information. The message is the reason.
    """
    if not len(clean) or artifact.num_classes is None:
        return
    count = SAMPLES_OF_LARGE_IMAGES if is_large_image(clean.x.shape[1:]) else SAMPLES
    measured = _measurement(Subject(artifact, clean.x[:count], digest))
    reason = measured.fault_of_outputs or (measured.fault_of_gradients if gradients else "")
    if reason:
        raise Unmeasurable(reason)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and samples as a cache key: all tests of one variant share one measurement."""

    artifact: Artifact
    x: Tensor
    digest: str

    @property
    def _key(self) -> tuple[object, ...]:
        module = self.artifact.module
        inner, factor = (module.net, module.factor) if isinstance(module, UnitMargin) else (module, 1.0)
        return id(inner), factor, self.digest, tuple(self.x.shape), float(self.x.double().sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subject) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class _Measurement:
    """Faults of one model, measured on demand with one forward pass.

    Args:
        subject: The model and samples.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @cached_property
    def forward(self) -> Forward:
        """Forward pass of the tests."""
        return _forward(self.subject.artifact, self.subject.x)

    @cached_property
    def fault_of_outputs(self) -> str:
        """Fault of the outputs on slightly changed samples, to follow a test's name; empty if there is none."""
        x, forward = self.subject.x, self.forward
        changed = _small_changes(x, torch.Generator().manual_seed(0))
        with torch.no_grad():
            outputs, again = forward(x).float(), forward(x).float()
            noisy = [forward(inputs).float() for inputs in changed]
        if not all(values.isfinite().all() for values in (outputs, *noisy)):
            return "gets no usable outputs: NaN or infinity on slightly changed clean samples"
        if float((outputs - again).abs().max()) > MAX_REPEAT_DIFFERENCE:
            return "gets no usable outputs: they differ between two runs on the same samples"
        if isinstance(self.subject.artifact.module, UnitMargin) and outputs.shape[1] > 1:
            top = outputs.topk(2, dim=1).values
            margin = float((top[:, 0] - top[:, 1]).median())
            if not MARGIN_RANGE[0] < margin < MARGIN_RANGE[1]:
                return (
                    f"gets no usable outputs: the two largest differ by {margin:.3g} in the median, beyond any scaling"
                )
        moved = (changed[-1] != x).flatten(1).any(1)
        unchanged = (noisy[-1] == outputs).all(1) & moved
        if int(unchanged.sum()) > MAX_UNCHANGED * int(moved.sum()):
            return (
                f"gets no usable outputs: they take few values, and a small change leaves them equal on "
                f"{int(unchanged.sum())} of {int(moved.sum())} clean samples"
            )
        return ""

    @cached_property
    def fault_of_gradients(self) -> str:
        """Fault of the gradients, as words to follow a test's name; empty if there is none."""
        artifact, x = self.subject.artifact, self.subject.x
        if artifact.num_classes == 1:  # no other class to search for
            return ""
        if isinstance(artifact.inputs, TextSpec):
            return _zero_gradients(_token_gradients(artifact, artifact.inputs, x))
        model, generator = self.forward, torch.Generator().manual_seed(0)
        outputs, gradient = _runner_up_gradient(model, x)
        if fault := _zero_gradients(gradient):
            return fault
        with torch.no_grad():
            direction = STEP * gradient.sign()
            gain = _rise(model, x, outputs, direction).median()
            random = STEP * (torch.rand(x.shape, generator=generator) - 0.5).sign()
            by_chance = _rise(model, x, outputs, random).abs().median()
            if not gain > MIN_GAIN_OVER_RANDOM * by_chance:
                return "gets no usable gradients: a step along them changes the outputs no more than a random step"
            predicted = (gradient * direction).flatten(1).sum(1).median()
            if gain > MAX_GAIN_OVER_PREDICTED * predicted:
                return (
                    "gets no usable gradients: a step along them changes the outputs "
                    f"{float(gain / predicted):.0f} times as much as they predict"
                )
            return _unseen_pixels(model, x, outputs, gradient, generator)


@lru_cache(maxsize=2)  # a file and its surrogate
def _measurement(subject: Subject) -> _Measurement:
    return _Measurement(subject)


def _small_changes(x: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Return slightly changed inputs, the largest change last: images between 8-bit steps and with noise; or texts."""
    if not x.is_floating_point():
        swapped = x.clone()
        swapped[:, 1] = x[:, 1].roll(1)  # the first token after the marker
        return [swapped]
    between = (x + (torch.rand(x.shape, generator=generator) - 0.5) / 255).clamp(0, 1)
    return [between, (x + NOISE * torch.randn(x.shape, generator=generator)).clamp(0, 1)]


def _forward(artifact: Artifact, x: Tensor) -> Forward:
    """Return the forward pass of the tests: of a prepared copy, if the model is differentiable.

    The searches prepare the encoder of a cluster probe alone, and so does this function. A second prepared model would
    take seconds.

    Args:
        artifact: The model.
        x: At least two inputs, for tracing.
    """
    if not artifact.differentiable or not x.is_floating_point():
        return lambda inputs: forward_batched(artifact.module, inputs)
    probe = find_cluster_probe(artifact.module)
    if probe is None:
        return partial(forward_prepared, prepare(artifact.module, x[:2]))
    encoder, head = prepare(probe.encoder, x[:2]), probe.head
    factor = artifact.module.factor if isinstance(artifact.module, UnitMargin) else 1.0
    return lambda images: factor * head(forward_prepared(encoder, images))


def _runner_up_gradient(model: Forward, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs (N, K), and the gradient (N, C, H, W) of the second largest minus the largest of them."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        outputs = model(x)
        top = outputs.topk(min(2, outputs.shape[1]), dim=1).values
        if not outputs.requires_grad:
            return outputs.detach(), torch.zeros_like(x)
        (gradient,) = torch.autograd.grad((top[:, -1] - top[:, 0]).sum(), x, allow_unused=True)
    return outputs.detach(), torch.zeros_like(x) if gradient is None else gradient


def _rise(model: Forward, x: Tensor, outputs: Tensor, change: Tensor) -> Tensor:
    """Return the rise (N,) of the second largest output relative to the largest, by a change of the images.

    Args:
        model: Forward pass.
        x: Images.
        outputs: Outputs (N, K) of ``x``.
        change: Change of the images.
    """
    classes = outputs.topk(min(2, outputs.shape[1]), dim=1).indices
    difference = (model((x + change).clamp(0, 1)) - outputs).gather(1, classes)
    return difference[:, -1] - difference[:, 0]


def _zero_gradients(gradient: Tensor) -> str:
    """Return the fault of a gradient (N, ...): not finite, or zero on many samples; empty if there is none."""
    if not gradient.isfinite().all():
        return "gets no usable gradients: NaN or infinity on clean samples"
    zero = (gradient == 0).flatten(1).all(1)
    if float(zero.float().mean()) > MAX_ZERO_GRADIENTS:
        return f"gets no usable gradients: they are zero on {int(zero.sum())} of {len(zero)} clean samples"
    return ""


def _unseen_pixels(model: Forward, x: Tensor, outputs: Tensor, gradient: Tensor, generator: torch.Generator) -> str:
    """Return the fault of pixels without any gradient: they change the outputs; empty if there is none.

    A model may ignore pixels. Then they change nothing.

    Args:
        model: Forward pass.
        x: Images.
        outputs: Outputs of ``x``.
        gradient: Gradient (N, C, H, W).
        generator: Of the new pixels.
    """
    zero = (gradient == 0).all(1).all(0)  # (H, W)
    if not zero.any():
        return ""
    replaced = torch.where(zero, torch.rand(x.shape, generator=generator), x)
    if not float((model(replaced) - outputs).abs().max()) > MAX_UNSEEN_CHANGE:
        return ""
    return f"gets no usable gradients: {int(zero.sum())} pixels have none, and change the outputs"


def _token_gradients(artifact: Artifact, spec: TextSpec, x: Tensor) -> Tensor:
    """Return the gradient (1, 1, E) of the largest outputs by the embedding of the first token of all texts."""
    encoder = artifact.module
    _, gradient = token_gradient(encoder, lambda outputs: outputs.amax(1).sum(), x, 1, spec)
    return gradient[None]
