"""Export stages: ONNX files in full precision and in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from assay.core.build import Build
from assay.formats import load
from assay.graphs.export import FULL_FILE, INT8_FILE, OPSET, to_onnx, to_onnx_int8
from assay.stages.base import Stage


@dataclass(frozen=True, kw_only=True)
class ExportOnnx(Stage):
    """ONNX file in full precision.

    The stage writes ``directory``/``model.onnx``; the next build is this file, run by ONNX Runtime. Without a
    ``directory`` the file is temporary, and only the loaded model remains.
    """

    directory: str | None = None
    opset: int = OPSET

    name: ClassVar[str] = "onnx"
    needs_data: ClassVar[bool] = False
    file_name: ClassVar[str | None] = FULL_FILE

    def __call__(self, build: Build, *, seed: int) -> Build:
        with _folder(self.directory) as directory:
            path = directory / FULL_FILE
            to_onnx(build.artifact, path, opset=self.opset)
            return build.then(self.name, load(path))


@dataclass(frozen=True, kw_only=True)
class ExportInt8(Stage):
    """Static int8 QDQ file for ONNX Runtime.

    The file is ``model-int8.onnx`` in ``directory``. All else is as in :class:`ExportOnnx`.
    """

    directory: str | None = None
    per_channel: bool = True
    samples: int = 512  # for calibration, from the calibration split, or else the training split
    opset: int = OPSET

    file_name: ClassVar[str | None] = INT8_FILE

    @property
    def name(self) -> str:
        return "onnx-int8-per-channel" if self.per_channel else "onnx-int8-per-tensor"

    def __call__(self, build: Build, *, seed: int) -> Build:
        clean = build.task.split("calibration", "train").sample(self.samples, seed=seed)
        with _folder(self.directory) as directory:
            path = directory / INT8_FILE
            to_onnx_int8(build.artifact, clean.x, path, per_channel=self.per_channel, opset=self.opset)
            return build.then(self.name, load(path))


@contextmanager
def _folder(directory: str | None) -> Iterator[Path]:
    """Yield ``directory``, or a temporary folder if it is None."""
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
