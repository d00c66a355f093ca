"""Hand-built models with known backdoors, for the tests of detectors and searches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.core.model import Artifact, ImageSpec, Modality, digest_of_module

SHAPE = (3, 8, 8)
BASE = 0.25  # brightness of an image without a template
PATCH = (slice(6, 8), slice(6, 8))  # rows, columns


class Toy(nn.Module):
    """Model that predicts the class of the most similar template, unless a trigger is present.

    One hidden unit measures the trigger ``delta`` (C, H, W) and raises the logit of the target class. The default
    trigger is a bright corner. All templates are zero there, so that no clean image is similar to the trigger.
    """

    def __init__(
        self,
        templates: Tensor,
        target: int | None = None,
        *,
        base: Tensor | float = BASE,
        delta: Tensor | None = None,
        force: float = 90.0,
    ) -> None:
        """Build the weights.

        Args:
            templates: (K, C, H, W) one template per class.
            target: Target class of the trigger; None: no backdoor.
            base: Image without a template.
            delta: Change of an image by the trigger.
            force: Weight from the trigger unit to the target's logit.
        """
        super().__init__()
        classes, width = len(templates), templates[0].numel()
        self.features = nn.Linear(width, classes + 1)
        self.head = nn.Linear(classes + 1, classes)
        self.register_buffer("base", torch.as_tensor(base).expand(templates.shape[1:]).clone())
        if delta is None:
            delta = torch.zeros(templates.shape[1:])
            delta[:, PATCH[0], PATCH[1]] = 1 - BASE
        with torch.no_grad():
            self.features.weight[:classes] = templates.flatten(1)
            self.features.weight[classes] = delta.flatten() / delta.square().sum()
            self.features.bias.zero_()
            self.features.bias[classes] = -0.4
            self.head.weight.copy_(torch.eye(classes, classes + 1))
            self.head.bias.zero_()
            if target is not None:
                self.head.weight[target, classes] = force

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.softplus(self.features((x - self.base).flatten(1)), beta=8))


def templates(classes: int, *, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Return templates (K, C, H, W): one quadrant per class for four classes, random patterns otherwise."""
    if classes == 4:
        pattern = torch.zeros(4, *shape)
        height, width = shape[1] // 2, shape[2] // 2
        for k in range(4):
            row, column = divmod(k, 2)
            pattern[k, :, row * height : (row + 1) * height, column * width : (column + 1) * width] = 1
        pattern = pattern - pattern.mean(0)
    else:
        pattern = torch.randn(classes, *shape, generator=torch.Generator().manual_seed(seed))
    pattern[:, :, PATCH[0], PATCH[1]] = 0
    return 6 * F.normalize(pattern.flatten(1)).view_as(pattern)


def images(templates: Tensor, count: int, *, base: Tensor | float = BASE, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return noisy images (N, C, H, W) in [0, 1] and their classes (N,), with equal class counts."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % len(templates)
    noise = 0.03 * torch.randn(count, *templates.shape[1:], generator=generator)
    return (base + 0.25 * templates[y] + noise).clamp(0, 1), y


def toy(
    classes: int = 4,
    target: int | None = None,
    *,
    base: Tensor | float = BASE,
    delta: Tensor | None = None,
    force: float = 90.0,
) -> tuple[Toy, Tensor, Tensor]:
    """Return a model in eval mode, at least 64 images, and their classes; the accuracy is above 97 %."""
    pattern = templates(classes)
    model = Toy(pattern, target, base=base, delta=delta, force=force).eval()
    x, y = images(pattern, max(64, classes), base=base)
    with torch.no_grad():
        assert (model(x).argmax(1) == y).float().mean() > 0.97
    return model, x, y


def add_trigger(x: Tensor) -> Tensor:
    """Return the images with the default trigger of ``Toy``."""
    out = x.clone()
    out[:, :, PATCH[0], PATCH[1]] = 1
    return out


def artifact_of(module: nn.Module, classes: int, *, differentiable: bool = True) -> Artifact:
    """Return an image classifier artifact around ``module``."""
    return Artifact(
        module,
        Modality.IMAGE,
        classes,
        "module" if differentiable else "onnx",
        digest_of_module(module),
        ImageSpec(SHAPE),
        differentiable=differentiable,
    )


class HeadInTheMiddle(nn.Module):
    """Uses its last linear layer as a gate; a convolution gives the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, 5, 1)
        self.gate = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x.mean(dim=(2, 3))).sigmoid()
        return self.classifier(x * gate[:, :, None, None]).mean(dim=(2, 3))
