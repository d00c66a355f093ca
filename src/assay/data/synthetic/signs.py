"""Procedural traffic signs: a data set with any number of classes and any size, without a download.

A class is a shape, a color and a glyph (8 x 8 x 32 = 2,048 combinations). Neighboring class numbers differ in all
three. A sample varies in position, size, rotation, background, clutter, lighting and noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.data.synthetic.glyphs import GLYPHS

MAX_CLASSES = 2000
SPLIT_FRACTIONS = {"train": 0.6, "calibration": 0.15, "validation": 0.1, "test": 0.15}
CHUNK_PIXELS = 2**19  # pixels to draw at a time; bounds memory at any size


@dataclass(frozen=True)
class Outline:
    """Star polygon of a sign."""

    corners: int
    rotation: float  # degrees
    ring: bool  # a colored ring around white, else color all over
    size: float = 1.0  # outer radius
    glyph: float = 0.5  # half the glyph's width
    inner: float | None = None  # inner radius over outer radius; None: a plain polygon


SHAPES = {
    "circle": Outline(24, 0.0, True),
    "triangle up": Outline(3, -90.0, True, 1.2, 0.38),
    "square": Outline(4, 45.0, False, 1.15),
    "triangle down": Outline(3, 90.0, True, 1.2, 0.38),
    "octagon": Outline(8, 22.5, False),
    "diamond": Outline(4, 0.0, True, 1.15, 0.42),
    "star": Outline(5, -90.0, False, 1.2, 0.42, inner=0.55),
    "cross": Outline(4, 0.0, False, 1.25, 0.42, inner=0.5),
}
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.08, 0.12),
    "blue": (0.08, 0.25, 0.75),
    "yellow": (0.95, 0.80, 0.10),
    "green": (0.08, 0.50, 0.22),
    "black": (0.10, 0.10, 0.12),
    "purple": (0.48, 0.15, 0.60),
    "cyan": (0.20, 0.75, 0.85),
    "orange": (0.95, 0.45, 0.05),
}
WHITE, BLACK = (0.96, 0.96, 0.96), (0.05, 0.05, 0.05)


@dataclass(frozen=True)
class Sign:
    """Shape, color and glyph of a class."""

    shape: str
    color: str
    glyph: str

    @property
    def name(self) -> str:
        """Name of the class."""
        return f"{self.color} {self.shape} {self.glyph}"


def sign(label: int) -> Sign:
    """Return the sign of a class; all labels below 2,048 have different signs."""
    shape, color, glyph = label % 8, label // 8 % 8, label // 64
    return Sign(
        list(SHAPES)[shape],
        list(COLORS)[(color + shape) % 8],
        list(GLYPHS)[(glyph + 4 * shape + 5 * color) % 32],
    )


def signs(num_classes: int = 10, *, size: int = 32, per_class: int | None = None, seed: int = 0) -> Task:
    """Draw images of traffic signs, in four splits.

    60 % go to train, 15 % to calibration, 10 % to validation, 15 % to test. Each split has at least one image of each
    class.

    Args:
        num_classes: Number of classes, from 2 to 2,000.
        size: Height and width in pixels, from 8 to 1,024.
        per_class: Images of each class. None: 800 for 10 classes of 32 pixels, fewer for more classes or larger
            images, so that all take at most 512 MiB.
        seed: Seed of the draw.

    Returns:
        The task, with inputs (N, 3, size, size) float32 in [0, 1].
    """
    data = Signs(num_classes, size, per_class, seed)
    splits = {}
    for name in data.counts:
        y = data.labels(name)
        splits[name] = Split(data.images(name, torch.arange(len(y))), y)
    return Task(data.name, splits, data.class_names)


@dataclass(frozen=True)
class Signs:
    """The data set of ``signs``: labels without images, and images on request."""

    num_classes: int
    size: int
    per_class: int | None
    seed: int

    def __post_init__(self) -> None:
        if not 2 <= self.num_classes <= MAX_CLASSES:
            raise UnusableInput(f"signs: expected 2 to {MAX_CLASSES} classes, got {self.num_classes}")
        if not 8 <= self.size <= 1024:
            raise UnusableInput(f"signs: expected a size of 8 to 1024 pixels, got {self.size}")

    @property
    def name(self) -> str:
        """Name of the data set, with its number of classes."""
        return f"signs:{self.num_classes}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by label."""
        return tuple(sign(label).name for label in range(self.num_classes))

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of images of each class, by split."""
        per_class, pixels = self.per_class, self.size * self.size
        if per_class is None:
            per_class = max(8, min(8000, 2**29 // (12 * pixels)) // self.num_classes)
            per_class = max(per_class, min(30, 2**30 // (12 * pixels) // self.num_classes))
        return {name: max(1, round(per_class * fraction)) for name, fraction in SPLIT_FRACTIONS.items()}

    def labels(self, split: str) -> Tensor:
        """Return the labels (N,) int64 of a split."""
        return self._begin(split)[0]

    def images(self, split: str, rows: Tensor) -> Tensor:
        """Draw images of a split.

        Args:
            split: Name of the split.
            rows: Ascending numbers (M,) of the images.

        Returns:
            Images (M, 3, size, size) float32 in [0, 1], in steps of 1/255 as in an image file.
        """
        labels, generator = self._begin(split)
        return draw(labels, rows, size=self.size, generator=generator)

    def _begin(self, split: str) -> tuple[Tensor, Generator]:
        """Return the labels of a split, and the source of randomness for its images."""
        generator = Generator().manual_seed(self.seed * len(SPLIT_FRACTIONS) + list(SPLIT_FRACTIONS).index(split))
        count = self.counts[split]
        order = torch.randperm(self.num_classes * count, generator=generator)
        return torch.arange(self.num_classes).repeat(count)[order], generator


def draw(labels: Tensor, rows: Tensor, *, size: int, generator: Generator) -> Tensor:
    """Draw one image for each label, and keep some of them.

    Args:
        labels: Class numbers (N,).
        rows: Ascending positions (M,) of the images to keep.
        size: Height and width in pixels.
        generator: Source of randomness.

    Returns:
        Images (M, 3, size, size) float32 in [0, 1], in steps of 1/255 as in an image file.
    """
    images = torch.empty(len(rows), 3, size, size)
    step = max(1, CHUNK_PIXELS // (size * size))
    last = int(rows[-1]) + 1 if len(rows) else 0
    for start in range(0, last, step):
        chunk = _draw(labels[start : start + step], size, generator)
        kept = (rows >= start) & (rows < start + step)
        images[kept] = chunk[rows[kept] - start]
    return images


def _draw(labels: Tensor, size: int, generator: Generator) -> Tensor:
    count = len(labels)
    x, y, pixel = _sign_coordinates(count, size, generator)
    kinds = [sign(int(label)) for label in labels]
    color = torch.tensor([COLORS[kind.color] for kind in kinds]).view(count, 3, 1, 1)
    outlines = [SHAPES[kind.shape] for kind in kinds]
    ring = torch.tensor([outline.ring for outline in outlines]).view(count, 1, 1, 1)
    white, black = torch.tensor(WHITE).view(1, 3, 1, 1), torch.tensor(BLACK).view(1, 3, 1, 1)

    distance = _distance(x, y, outlines)
    outline = _coverage(1.0 - distance, pixel)
    inner = torch.where(ring, _coverage(0.72 - distance, pixel), _coverage(0.9 - distance, pixel))
    width = _column([outline.glyph for outline in outlines])
    glyph = _glyph(x / width, y / width, [kind.glyph for kind in kinds], pixel / width)
    # Rings: a colored border around white with a black glyph; full signs: a white border around color.
    face = torch.where(ring, white, color)
    border = torch.where(ring, color, white)
    mark = torch.where(ring, black, white)
    plate = _over(_over(border.expand(count, 3, size, size), face, inner), mark, glyph * inner)
    return _light(_over(_background(count, size, generator), plate, outline), generator)


def _sign_coordinates(count: int, size: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates (N, 1, H, W) of all pixel centers on a sign of radius 1, and the width of a pixel."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    angle = _uniform(count, -12, 12, generator) * math.pi / 180
    radius = _uniform(count, 0.58, 0.82, generator)
    free = 1 - radius
    dx, dy = (_uniform(count, -0.8, 0.8, generator) * free for _ in range(2))
    stretch = _uniform(count, 0.9, 1.1, generator)
    px, py = (axis.view(1, 1, 1, -1) - dx) / radius * stretch, (axis.view(1, 1, -1, 1) - dy) / radius
    cos, sin = angle.cos(), angle.sin()
    return px * cos + py * sin, py * cos - px * sin, 2 / size / radius


def _distance(x: Tensor, y: Tensor, outlines: list[Outline]) -> Tensor:
    """Return 0 in the sign's center, 1 on its edge, linear between: (N, 1, H, W)."""
    corners, rotation, scale = (
        _column([float(getattr(outline, field)) for outline in outlines]) for field in ("corners", "rotation", "size")
    )
    sector = math.pi / corners
    inner = _column([outline.inner or math.cos(math.pi / outline.corners) for outline in outlines])
    theta = torch.atan2(y, x) - rotation * math.pi / 180
    folded = (torch.remainder(theta + sector, 2 * sector) - sector).abs()  # 0 at a corner, ``sector`` between two
    # The edge runs from the corner (1, 0) to the inner point; its normal, up to length:
    ix, iy = inner * sector.cos(), inner * sector.sin()
    nx, ny = iy, 1 - ix
    rho = (x * x + y * y).sqrt()
    return rho * (folded.cos() * nx + folded.sin() * ny) / nx / scale


def _glyph(x: Tensor, y: Tensor, glyphs: list[str], pixel: Tensor) -> Tensor:
    """Return each pixel's coverage by the 5 x 5 glyph between -1 and 1: (N, 1, H, W) in [0, 1]."""
    bitmaps = torch.stack([GLYPHS[name] for name in glyphs]).unsqueeze(1)
    grid = torch.stack([x, y], dim=-1).squeeze(1) * (5 / 7)  # the bitmap, with one empty cell around, is 7 wide
    soft = F.grid_sample(F.pad(bitmaps, (1, 1, 1, 1)), grid, mode="bilinear", align_corners=False)
    return ((soft - 0.5) * (0.4 / pixel).clamp(1.5) + 0.5).clamp(0, 1)  # a cell is 0.4 wide


def _background(count: int, size: int, generator: Generator) -> Tensor:
    """Return blurred color noise with a few rectangles in it: (N, 3, H, W)."""
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 0.5 + _uniform(count, 0.0, 0.5, generator)
    gray = coarse.mean(1, keepdim=True)
    image = F.interpolate(gray + (coarse - gray) * 0.7, (size, size), mode="bilinear", align_corners=False)
    axis = (torch.arange(size) + 0.5) / size
    for _ in range(3):
        left, top = (_uniform(count, -0.3, 0.9, generator) for _ in range(2))
        width, height = (_uniform(count, 0.05, 0.5, generator) for _ in range(2))
        column = (axis.view(1, 1, 1, -1) - left).div(width).sub(0.5).abs() < 0.5
        row = (axis.view(1, 1, -1, 1) - top).div(height).sub(0.5).abs() < 0.5
        color = torch.rand(count, 3, 1, 1, generator=generator)
        image = _over(image, color, (column & row) * _uniform(count, 0.3, 0.9, generator))
    return image


def _light(image: Tensor, generator: Generator) -> Tensor:
    """Add brightness, a gradient across the image, a color cast and noise; round to steps of 1/255."""
    count, _, size, _ = image.shape
    axis = torch.linspace(-1, 1, size)
    slope = [_uniform(count, -0.12, 0.12, generator) for _ in range(2)]
    gain = _uniform(count, 0.6, 1.1, generator) + slope[0] * axis.view(1, 1, 1, -1) + slope[1] * axis.view(1, 1, -1, 1)
    cast = 1 + (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * 0.12
    noise = torch.randn(image.shape, generator=generator) * _uniform(count, 0.005, 0.04, generator)
    return ((image * gain * cast + noise).clamp(0, 1) * 255).round() / 255


def _over(below: Tensor, above: Tensor, coverage: Tensor) -> Tensor:
    return below + (above - below) * coverage


def _coverage(inside: Tensor, pixel: Tensor) -> Tensor:
    """Return the covered fraction of a pixel at distance ``inside`` from an edge (positive: inside)."""
    return (inside / pixel + 0.5).clamp(0, 1)


def _column(values: list[float]) -> Tensor:
    """Return values as (N, 1, 1, 1)."""
    return torch.tensor(values).view(-1, 1, 1, 1)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """Return uniform random numbers (N, 1, 1, 1)."""
    return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low
