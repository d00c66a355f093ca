"""User input of an audit: all kinds of model, data, detectors and null."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.nulls import null_of_rows
from support.toys import SHAPE, artifact_of, toy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from assay.auditing import inputs
from assay.auditing.api import audit
from assay.auditing.config import AuditConfig
from assay.calibration import file
from assay.calibration.reference import make_test_id
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.detectors import LatentShift
from assay.formats.normalization import UNKNOWN_NORMALIZATION

QUICK: dict[str, Any] = {"variant_names": "full", "detectors": "latent-shift"}


@pytest.fixture
def null(tmp_path: Path) -> Path:
    rows = ({make_test_id("full", "latent-shift"): i / 100} for i in range(60))
    file.save(null_of_rows(rows), tmp_path / "null.json")
    return tmp_path / "null.json"


def test_audit_names_and_files_same_as_objects(null: Path) -> None:
    net, x, y = toy(4, None)
    result = audit(net, DataLoader(TensorDataset(x, y), batch_size=16), shape=list(SHAPE), null=null, **QUICK)
    assert [(f.variant, f.detector) for f in result.findings] == [("full", "latent-shift")]
    assert result.null is not None
    assert result.null.name == "toys"
    assert (result.data_samples, result.variants[0].accuracy) == (len(x), 1.0)
    assert (result.model.shape, result.notes) == (SHAPE, (UNKNOWN_NORMALIZATION,))
    assert result.command == (
        "assay.audit(model, data, shape=(3, 8, 8), variant_names=('full',), detectors='latent-shift', "
        f"null={str(null)!r}, seed=0)"
    )


def test_audit_labels_false_ignores_labels(null: Path) -> None:
    net, x, y = toy(4, None)
    result = audit(net, (x, (y + 1) % 4), shape=SHAPE, labels=False, null=str(null), **QUICK)
    assert result.variants[0].accuracy is None
    assert "labels=False" in result.command


def test_audit_guesses_in_notes(tmp_path: Path, null: Path) -> None:
    net, x, _ = toy(4, None)
    for index, image in enumerate(x[:6]):
        pixels = (255 * image.permute(1, 2, 0)).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"IMG_{1000 + index}.png")
    result = audit(net.half(), tmp_path, shape=SHAPE, null=null, **QUICK)
    copied, assumed, numbers = result.notes
    assert assumed == UNKNOWN_NORMALIZATION
    assert "float16" in copied
    assert "not used as classes" in numbers
    assert result.variants[0].accuracy is None
    assert next(net.parameters()).dtype == torch.float16


def test_clean_samples_task_of_other_dtypes_converted() -> None:
    net, x, y = toy(4, None)
    task = Task("t", {"test": Split(x.double(), y.int())}, tuple("abcd"), notes=("a guess",))
    clean = inputs.clean_samples(task, artifact_of(net, 4), seed=0)
    assert (clean.split.x.dtype, clean.notes, clean.class_names) == (torch.float32, ("a guess",), tuple("abcd"))


def test_detectors_of_names_resolved() -> None:
    assert [d.name for d in inputs.detectors_of("patch-scan, wave-scan")] == ["patch-scan", "wave-scan"]
    own = LatentShift()
    assert inputs.detectors_of([own, "weight-norm"])[0] is own
    assert inputs.detectors_of(()) == ()
    assert "warp-scan" in {d.name for d in inputs.detectors_of(None)}
    with pytest.raises(UnusableInput, match="no detector 'patchscan'; did you mean patch-scan"):
        inputs.detectors_of(("patchscan",))
    with pytest.raises(UnusableInput, match="no detector ''"):
        inputs.detectors_of("")


@pytest.mark.parametrize(
    ("model", "message"),
    [(None, "got a NoneType"), ({"weight": torch.zeros(1)}, "got a dict"), (nn.Linear(2, 2).state_dict(), "nn.Module")],
)
def test_audit_no_model_one_line_error(model: Any, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        audit(model)


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 8.5), "3,8,8", 8, (3, 0, 8), (3, 8, 10**9)])
def test_audit_bad_shape_one_line_error(shape: Any) -> None:
    with pytest.raises(UnusableInput, match=r"shape: expected \(channels, height, width\)"):
        audit(toy(4, None)[0], shape=shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference_arch": "resnet8-cifar"}, "a reference for reference_arch, got none"),
        ({"reference_pooling": "cls"}, "a reference for reference_pooling, got none"),
        ({"reference_output": "logits"}, "a reference for reference_output, got none"),
        ({"labels": False, "label_column": "class"}, "'class' or no labels, got both"),
    ],
    ids=str,
)
def test_setting_without_its_counterpart_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        AuditConfig(**options)


def test_label_column_without_data_is_refused() -> None:
    with pytest.raises(UnusableInput, match="expected data for the label column 'class', got none"):
        inputs.clean_samples(None, artifact_of(toy(4, None)[0], 4), seed=0, label_column="class")
