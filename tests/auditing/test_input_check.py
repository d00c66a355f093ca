"""Tests of the input check: its three lines, the choice of a numbering, and images without content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import assay
from assay.auditing import inputs
from assay.auditing.config import AuditConfig
from assay.auditing.facts import CleanSamples
from assay.auditing.input_check import check_inputs, choose_numbering, content_notes
from assay.auditing.run import Callbacks, run_audit
from assay.core.dataset import DataSummary, Numbering, Split
from assay.core.options import ModelOptions
from assay.core.result import InputCheck
from assay.formats.torch_module import from_module
from tests.data.test_labels import LEVEL, folders, gray


class ByLevel(nn.Module):
    """Classifier of the gray level of an image, in a given order of the levels."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(order) * LEVEL / 255)
        self.head = nn.Linear(len(order), len(order), bias=False)
        self.head.weight.data = torch.eye(len(order))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(-20 * (x.mean((1, 2, 3))[:, None] - self.levels).abs())


def audited(root: Path, order: list[int], **options: Any) -> assay.Audit:
    names = ("channel-lipschitz",)
    return assay.audit(ByLevel(order), root, shape=(3, 8, 8), variant_names=("full",), detectors=names, **options)


def test_three_lines_state_model_data_and_labels(tmp_path: Path) -> None:
    folders(tmp_path, {"ant": 0, "bee": 1, "cat": 2}, count=30)
    (tmp_path / "readme.txt").write_text("x")
    result = audited(tmp_path, [0, 1, 2], mean=(0, 0, 0), std=(1, 1, 1))
    assert result.input_check == InputCheck(
        "module; output: 3 classes; input: images 3 × 8 × 8 in [0, 1]; normalization: mean 0 0 0, std 1 1 1 (as given)",
        f"folder of images {tmp_path.name}: 45 samples, out of 90; left out: files of other kinds (.txt): 1",
        "folder names, numbered in alphabetical order, 3 of 3 classes in the samples",
    )
    assert result.accuracy == 1


def test_input_check_comes_before_the_first_test(tmp_path: Path) -> None:
    seen: list[object] = []
    folders(tmp_path, {"ant": 0, "bee": 1})
    run_audit(
        from_module(ByLevel([0, 1]), shape=(3, 8, 8)),
        str(tmp_path),
        ModelOptions(),
        AuditConfig(("full",), "channel-lipschitz"),
        callbacks=Callbacks(lambda step, fraction: seen.append(step), seen.append),
    )
    assert isinstance(seen[0], InputCheck)


@pytest.mark.parametrize("alphabetical", [True, False])
def test_numbering_that_fits_the_predictions_is_taken_and_stated(tmp_path: Path, alphabetical: bool) -> None:
    names = [str(number) for number in range(12)]
    folders(tmp_path, {name: int(name) for name in names}, count=4)
    order = [int(name) for name in (sorted(names) if alphabetical else names)]
    result = audited(tmp_path, order)
    assert result.accuracy == 1
    note = next(note for note in result.notes if note.startswith("numbering"))
    wanted = (
        "changed, as it fits the model clearly better: in alphabetical order" if alphabetical else "as read: as whole"
    )
    assert wanted in note
    assert "17 % right" in note
    assert result.input_check is not None
    assert "checked against the predictions" in result.input_check.labels


def test_numbering_stays_without_a_clear_gain() -> None:
    split = Split(torch.zeros(10, 1, 2, 2), torch.arange(10) % 2)
    other = Numbering("other", torch.tensor([1, 0]))
    summary = DataSummary(numbering="first", alternatives=(other,))
    samples = CleanSamples("data", split, notes=("first; also possible: other",), summary=summary)
    kept = choose_numbering(samples, torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 1, 0]))
    assert kept.split.y is split.y
    assert kept.notes == ("numbering of the classes as read: first (first: 40 % right, other: 60 % right)",)
    assert choose_numbering(replace(samples, notes=()), torch.zeros(10)).notes == ()
    impossible = replace(
        samples, summary=replace(samples.summary, alternatives=(Numbering("x", torch.tensor([-1, 0])),))
    )
    assert choose_numbering(impossible, torch.zeros(10)).split.y is split.y


def test_images_without_content_are_noted() -> None:
    noise = torch.rand(20, 3, 4, 4)
    assert content_notes(noise) == ()
    assert "all 20 images are equal" in content_notes(noise[:1].expand(20, 3, 4, 4))[0]
    assert "10 of 20 images are black" in " ".join(content_notes(torch.cat([noise[:10], torch.zeros(10, 3, 4, 4)])))
    flat = torch.linspace(0.1, 0.9, 20)[:, None, None, None].expand(20, 3, 4, 4)
    assert content_notes(flat)[0].startswith("20 of 20 images have one color only")
    assert content_notes(noise / 16)[0].startswith("all images are dark: no value is over 6 %")
    assert "5 of 20 images are copies" in content_notes(torch.cat([noise[:15], noise[:5]]))[0]


def test_samples_in_memory_are_converted_with_notes() -> None:
    artifact = from_module(ByLevel([0, 1]), shape=(3, 8, 8))
    pixels = np.stack([np.asarray(gray(label)) for label in (0, 1, 0, 1)])
    samples = inputs.clean_samples((pixels, [0, 1, 0, 1]), artifact, seed=0)
    assert samples.split.x.shape == (4, 3, 8, 8)
    assert any("divided by 255" in note for note in samples.notes)
    assert check_inputs(artifact, samples).data == "data in memory: 4 samples"
    assert check_inputs(artifact, inputs.clean_samples(None, artifact, seed=0)).labels.startswith("none")


def test_fewer_folders_than_classes_are_numbered_if_the_predictions_agree(tmp_path: Path) -> None:
    folders(tmp_path, {"ant": 0, "bee": 1, "cat": 2}, count=30)
    result = audited(tmp_path, [0, 1, 2, 3, 4])
    assert result.accuracy == 1
    assert any("3 of the model's classes; their numbering fits" in note for note in result.notes)
    assert result.input_check is not None
    assert "in alphabetical order, checked against the predictions" in result.input_check.labels


def test_fewer_folders_than_classes_are_no_labels_if_the_predictions_differ(tmp_path: Path) -> None:
    folders(tmp_path, {"ant": 0, "bee": 1, "cat": 4}, count=30)
    result = audited(tmp_path, [0, 1, 2, 3, 4])
    assert result.accuracy is None
    assert not any(note.startswith("labels are the") for note in result.notes)
    assert any("does not fit the predictions (67 % right). Fix: name folders" in note for note in result.notes)
    assert result.input_check is not None
    assert result.input_check.labels == "none: the accuracy is unknown"
