"""The audit's door: what people hand in becomes an Artifact and clean samples, or one clear line says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.artifact import Artifact
from assay.errors import UnusableInput
from assay.task import Split, Task

SAMPLES = 512
"""Clean samples that an audit uses at most."""

RANGE_SLACK = 1e-3
"""How far outside [0, 1] a picture may be: what resizing rounds."""


@dataclass(frozen=True)
class Clean:
    """The clean samples of an audit, at most ``SAMPLES`` of them."""

    name: str
    split: Split
    class_names: tuple[str, ...] | None = None  # what the data calls the model's classes


def artifact_of(
    model: str | Path | nn.Module | Artifact,
    *,
    arch: str | None = None,
    shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Artifact:
    """The model as the audit takes it; raises UnusableInput where it cannot be used."""
    from assay import formats
    from assay.formats.module import from_module

    if isinstance(model, Artifact):
        return model
    if isinstance(model, nn.Module):
        return from_module(model, shape=shape, mean=mean, std=std)
    return formats.load(model, arch=arch, mean=mean, std=std)


def clean_samples(
    data: str | Path | Task | Split | tuple[Tensor, Tensor | None] | None, artifact: Artifact, *, seed: int
) -> Clean:
    """The samples to audit ``artifact`` with; raises UnusableInput where they are none of this model's."""
    from assay import data as loaders

    name, class_names = "data in memory", None
    if data is None:
        return Clean("none", Split(torch.zeros(0, *artifact.inputs.shape), None))
    if isinstance(data, str | Path):
        data = loaders.load(
            data,
            artifact.inputs,
            num_classes=artifact.num_classes,
            class_names=artifact.class_names,
            limit=4 * SAMPLES,
            seed=seed,
        )
    if isinstance(data, Task):
        name, split = data.name, data.split("calibration", "validation", "train", "test")
        class_names = data.class_names if data.num_classes == artifact.num_classes else None
    else:
        split = data if isinstance(data, Split) else Split(*data)
    check(split, artifact)
    return Clean(name, split.sample(SAMPLES, seed=seed), class_names)


def check(split: Split, artifact: Artifact) -> None:
    """Raises UnusableInput where these samples are none of this model's."""
    x, y = split.x, split.y
    if not isinstance(x, Tensor) or not isinstance(y, Tensor | None):
        raise UnusableInput(f"expected pictures and labels as tensors; got {type(x).__name__} and {type(y).__name__}")
    if tuple(x.shape[1:]) != artifact.inputs.shape:
        raise UnusableInput(
            f"expected pictures of shape {artifact.inputs.shape}, as the model takes them; got {tuple(x.shape[1:])}"
        )
    if x.dtype != torch.float32:
        raise UnusableInput(f"expected pictures as float32 in [0, 1]; got {x.dtype}: convert them, and divide by 255")
    if len(x) and not (float(x.min()) >= -RANGE_SLACK and float(x.max()) <= 1 + RANGE_SLACK):  # NaN fails as well
        raise UnusableInput(
            f"expected pictures in [0, 1], without normalization; got values from {float(x.min()):.4g} "
            f"to {float(x.max()):.4g}: pass mean and std to the audit instead"
        )
    if y is not None:
        _check_labels(y, len(x), artifact.num_classes)


def _check_labels(y: Tensor, count: int, classes: int | None) -> None:
    if tuple(y.shape) != (count,):
        raise UnusableInput(f"expected a label for each of {count} pictures; got labels of shape {tuple(y.shape)}")
    if y.is_floating_point() or y.dtype == torch.bool:
        raise UnusableInput(f"expected labels as int64; got {y.dtype}")
    if len(y) and classes is not None and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise UnusableInput(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes; "
            f"got labels from {int(y.min())} to {int(y.max())}"
        )
