"""Input check: three lines on the use of model, data and labels, before any test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from assay.auditing.facts import CleanSamples
from assay.core.dataset import Split
from assay.core.model import Artifact, ImageSpec
from assay.core.result import InputCheck
from assay.nn.normalized import Normalized

# Another numbering of the classes has to be right on this much more of the samples, and on twice as many.
CLEAR_GAIN = 0.1

# Smallest range of the pixels of an image with content, in [0, 1].
MIN_RANGE = 2 / 255

# Brightest value of dark images. 12 bits in a file of 16 bits have 1/16.
DARK = 0.15

# Fraction of images without content, or of copies, for a note.
MANY = 0.1

PREPROCESSOR = "preprocessor_config.json"


def check_inputs(artifact: Artifact, samples: CleanSamples) -> InputCheck:
    """Return the use of a model and its clean samples in three lines.

    Args:
        artifact: The model.
        samples: Its clean samples.
    """
    return InputCheck(_model_line(artifact), _data_line(samples), _labels_line(artifact, samples))


def choose_numbering(samples: CleanSamples, predictions: Tensor) -> CleanSamples:
    """Return samples with the labels in the numbering that fits the model's predictions.

    Only the numberings that the reader lists as possible compete. Without any, the samples stay as they are. A guess on
    fewer classes than the model's needs agreement on each class; otherwise the labels are dropped.

    Args:
        samples: Clean samples.
        predictions: The model's predictions (N,) on them.
    """
    y, summary = samples.split.y, samples.summary
    if y is not None and len(y) and summary.unconfirmed:
        return _confirm(samples, y, predictions)
    if y is None or not summary.alternatives or not len(y):
        return samples
    rates = [(summary.numbering, y, _accuracy(y, predictions))]
    for other in summary.alternatives:
        labels = other.labels[y]
        if int(labels.min()) >= 0:
            rates.append((other.name, labels, _accuracy(labels, predictions)))
    name, labels, rate = max(rates, key=lambda entry: entry[2])
    before = rates[0][2]
    if rate < before + CLEAR_GAIN or rate < 2 * before:
        name, labels = rates[0][:2]
    doubts = [each for each in samples.notes if "also possible:" in each]
    if labels is y and not doubts:  # an unlikely alternative, without a note of the reader
        return samples
    compared = ", ".join(f"{each}: {100 * fraction:.0f} % right" for each, _, fraction in rates)
    choice = "as read" if labels is y else "changed, as it fits the model clearly better"
    note = f"numbering of the classes {choice}: {name} ({compared})"
    return replace(
        samples,
        split=Split(samples.split.x, labels),
        summary=replace(summary, numbering=f"{name}, checked against the predictions", alternatives=()),
        class_names=samples.class_names if labels is y else None,
        notes=(*(each for each in samples.notes if each not in doubts), note),
    )


def _confirm(samples: CleanSamples, y: Tensor, predictions: Tensor) -> CleanSamples:
    """Return samples with labels only if the most frequent prediction for each label is the label.

    Args:
        samples: Clean samples with a guessed numbering.
        y: Their labels (N,).
        predictions: The model's predictions (N,).
    """
    labels = torch.unique(y).tolist()
    summary = replace(samples.summary, unconfirmed=False)
    right = f"{100 * _accuracy(y, predictions):.0f} % right"
    if all(int(predictions[y == label].mode().values) == label for label in labels):
        numbering = f"{summary.numbering}, checked against the predictions"
        note = f"the data has {len(labels)} of the model's classes; their numbering fits the predictions ({right})"
        return replace(samples, summary=replace(summary, numbering=numbering), notes=(*samples.notes, note))
    note = (
        f"no labels: the data has fewer classes than the model, and their numbering {summary.numbering} does not fit "
        f"the predictions ({right}). Fix: name folders or words by the numbers of the model's classes"
    )
    notes = (*(each for each in samples.notes if not each.startswith("labels are the ")), note)
    return replace(samples, split=Split(samples.split.x, None), summary=replace(summary, numbering=""), notes=notes)


def content_notes(x: Tensor) -> tuple[str, ...]:
    """Return notes on images without content, and on copies.

    Args:
        x: Images (N, C, H, W) in [0, 1].
    """
    if len(x) < 2 or x.ndim != 4 or not x.is_floating_point():
        return ()
    flat = x.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    black = int((high < MIN_RANGE).sum())
    constant = int((high - low < MIN_RANGE).sum()) - black
    copies = len(x) - len({hash(image.numpy().tobytes()) for image in flat})
    found = []
    if copies == len(x) - 1:
        found.append(f"all {len(x):,} images are equal")
    elif copies >= MANY * len(x):
        found.append(f"{copies:,} of {len(x):,} images are copies of others")
    if black >= max(1, MANY * len(x)):
        found.append(f"{black:,} of {len(x):,} images are black")
    if MIN_RANGE <= float(high.max()) < DARK:
        found.append(f"all images are dark: no value is over {100 * float(high.max()):.0f} % of the brightest one")
    if constant >= max(1, MANY * len(x)):
        found.append(f"{constant:,} of {len(x):,} images have one color only")
    return tuple(f"{each}. Fix if they should not be: check the files and their range" for each in found)


def _accuracy(y: Tensor, predictions: Tensor) -> float:
    return float((predictions == y).float().mean())


def _model_line(artifact: Artifact) -> str:
    outputs = "embeddings (encoder)" if artifact.num_classes is None else f"{artifact.num_classes:,} classes"
    names = "" if artifact.class_names is None else f", named {_listed(artifact.class_names, 3)}"
    shape = " × ".join(map(str, artifact.inputs.shape))
    parts = [
        f"{artifact.format}{f', {artifact.arch}' if artifact.arch else ''}",
        f"output: {outputs}{names}",
    ]
    if artifact.unexamined_outputs:
        parts.append(f"outputs left out: {_listed(artifact.unexamined_outputs, 6)}")
    if isinstance(artifact.inputs, ImageSpec):
        parts += [f"input: images {shape} in [0, 1]{_resizing(artifact.inputs)}", _normalization(artifact)]
    else:
        parts.append(f"input: texts of up to {shape} tokens")
    return "; ".join(parts)


def _resizing(spec: ImageSpec) -> str:
    if spec.first_crop is not None:
        return f", cropped and resized ({spec.resample})"
    if spec.resize is None:
        return ", cropped" if spec.crop else ""
    size = spec.resize if isinstance(spec.resize, int) else " × ".join(map(str, spec.resize))
    return f", resized to {size} ({spec.resample}){' and cropped' if spec.crop else ''}"


def _normalization(artifact: Artifact) -> str:
    """Return mean and standard deviation of the input, and their source if it is known."""
    found = next((module for module in artifact.module.modules() if isinstance(module, Normalized)), None)
    if artifact.normalization_unknown:
        return "normalization: stated nowhere, none is applied"
    if found is None:
        return "normalization: inside the model"
    mean, std = (" ".join(f"{value:.3g}" for value in part.flatten().tolist()) for part in (found.mean, found.std))
    files = [file.name for file in artifact.files if file.name.rsplit("/", 1)[-1] == PREPROCESSOR]
    source = artifact.normalization_from or (f"from {files[0]}" if files else "from the model's file")
    return f"normalization: mean {mean}, std {std} ({source})"


def _data_line(samples: CleanSamples) -> str:
    summary, count = samples.summary, len(samples.split)
    if not count:
        return "none given"
    kind = f"{summary.kind} " if summary.kind else ""
    line = f"{kind}{samples.name}: {count:,} samples"
    split = summary.drawn_from if samples.used == "calibration" else samples.used
    total = summary.totals.get(split)
    if split and split != "all":
        line += f" of the split {split}"
    if total is not None:
        line += f", out of {total:,}"
    others = [f"{name} ({size:,})" for name, size in summary.totals.items() if name != split]
    if others:
        line += f"; splits without use: {', '.join(others)}"
    if summary.left_out:
        line += f"; left out: {', '.join(summary.left_out)}"
    return line


def _labels_line(artifact: Artifact, samples: CleanSamples) -> str:
    y, summary = samples.split.y, samples.summary
    if y is None or not len(y):
        return "none: the accuracy is unknown"
    seen = torch.unique(y)
    source = f"{summary.labels}, " if summary.labels else ""
    numbering = f"numbered {summary.numbering}, " if summary.numbering else ""
    classes = artifact.num_classes
    count = f"{len(seen):,} classes" if classes is None else f"{len(seen):,} of {classes:,} classes"
    return f"{source}{numbering}{count} in the samples"


def _listed(names: Sequence[str], most: int) -> str:
    shown = ", ".join(str(name)[:40] for name in names[:most])
    return f"{shown}, ..." if len(names) > most else shown
