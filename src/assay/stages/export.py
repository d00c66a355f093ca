"""Export to ONNX: full precision, and int8 as the static QDQ file that ONNX Runtime deploys."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from assay.core.build import Build
from assay.core.errors import UnusableInput, first_line
from assay.core.model import Artifact
from assay.formats import load, save
from assay.formats.metadata import ModelMetadata
from assay.io.atomic import write_atomically
from assay.nn.gates import SignatureGate
from assay.nn.graph_edited import GraphEditedModel
from assay.stages.base import spec_of

if TYPE_CHECKING:
    import onnx

OPSET = 20  # what torch 2.13 exports to without converting versions
PAINT = re.compile(r"\x1b\[")
"""Where the exporter begins to print in colours, what it says to whoever calls it."""
INPUT, OUTPUT = "input", "logits"
FULL_FILE, INT8_FILE = "model.onnx", "model-int8.onnx"


@dataclass(frozen=True, kw_only=True)
class ExportOnnx:
    """ONNX file in full precision.

    Writes the build's net to ``directory``/``model.onnx``, and goes on with that file. Without a ``directory`` the file
    is nowhere once it is loaded: what goes on is the net as ONNX Runtime runs it.
    """

    directory: str | None = None
    opset: int = OPSET

    name = "onnx"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        """The build around the file. Raises UnusableInput where the net cannot be exported."""
        with _place(self.directory) as directory:
            path = directory / FULL_FILE
            to_onnx(build.artifact, path, opset=self.opset)
            return build.then(self.name, load(path))


@dataclass(frozen=True, kw_only=True)
class ExportInt8:
    """Static int8 QDQ file for ONNX Runtime.

    Written to ``directory``/``model-int8.onnx``; else as :class:`ExportOnnx`.
    """

    directory: str | None = None
    per_channel: bool = True
    samples: int = 512  # for calibration, from the calibration split, or else the training split
    opset: int = OPSET

    @property
    def name(self) -> str:
        return "onnx-int8-per-channel" if self.per_channel else "onnx-int8-per-tensor"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        """The build around the file. Raises UnusableInput where the net cannot be exported."""
        clean = build.task.split("calibration", "train").sample(self.samples, seed=seed)
        with _place(self.directory) as directory:
            path = directory / INT8_FILE
            to_onnx_int8(build.artifact, clean.x, path, per_channel=self.per_channel, opset=self.opset)
            return build.then(self.name, load(path))


@contextmanager
def _place(directory: str | None) -> Iterator[Path]:
    """``directory``, or a passing one."""
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory() as passing:
        yield Path(passing)


def save_model(artifact: Artifact, directory: Path, *, planted: str | None = None) -> Path:
    """Writes ``model.safetensors``, or ``model.onnx`` where something was built into the net.

    ``planted``: a mark that the file bears too; the artifact's own is always kept.
    """
    if not isinstance(artifact.module, GraphEditedModel) or isinstance(artifact.module, SignatureGate):
        return save(artifact, directory, planted=planted)
    path = directory / FULL_FILE
    marks = "; ".join(dict.fromkeys(mark for mark in (planted, artifact.planted) if mark))
    to_onnx(replace(artifact, planted=marks or None, arch=None), path)
    return path


def to_onnx(artifact: Artifact, path: Path, *, opset: int = OPSET) -> None:
    """Writes ``artifact`` as one ONNX file: ``input`` (N, C, H, W) float32 in [0, 1] -> ``logits``, any N.

    The normalization is inside the graph. The marks of the artifact (what was planted, which architecture) go into
    the file's metadata. The file appears whole or not at all. Raises UnusableInput where the net cannot be exported.
    """
    if not artifact.differentiable:
        raise UnusableInput(f"expected a net with weights in torch to export, got format {artifact.format}")
    if artifact.num_classes is None:
        raise UnusableInput(f"expected a model that names classes; encoders as {artifact.name} cannot be exported yet")
    example = torch.rand(2, *artifact.image_spec.shape, generator=torch.Generator().manual_seed(0))
    _save(graph_of(artifact.module, example, opset=opset), artifact, path)


def graph_of(net: nn.Module, example: Tensor, *, opset: int = OPSET) -> onnx.ModelProto:
    """``net`` in eval mode as an ONNX graph: ``input`` (N, ...) as ``example`` (2, ...) -> ``logits``, any N.

    Raises UnusableInput where it cannot be exported.
    """
    try:
        with _quiet():
            program = torch.onnx.export(
                copy.deepcopy(net).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever goes wrong in classes of its own
        reason = PAINT.split((str(error).strip() or type(error).__name__).splitlines()[0])[0].strip()
        raise UnusableInput(f"expected a net that torch.onnx can export, it says: {reason}") from error
    assert program is not None
    return program.model_proto


def to_onnx_int8(artifact: Artifact, clean: Tensor, path: Path, *, per_channel: bool, opset: int = OPSET) -> None:
    """Writes ``artifact`` as ONNX Runtime's static QDQ file: uint8 activations, int8 weights, else its defaults.

    Calibrated by minimum and maximum over ``clean`` (N, C, H, W) in [0, 1], after ONNX Runtime's own pre-processing.
    Metadata, errors and writing as in :func:`to_onnx`.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as directory:
        full, prepared, int8 = (str(Path(directory) / name) for name in ("full.onnx", "prepared.onnx", "int8.onnx"))
        to_onnx(artifact, Path(full), opset=opset)  # the marks come with the last file
        try:
            quant_pre_process(full, prepared)
        except Exception:  # of graphs whose shapes depend on values it knows only some operators
            quant_pre_process(full, prepared, skip_symbolic_shape=True)
        try:
            quantize_static(
                prepared,
                int8,
                _reader(clean, batch_size=64),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # its errors have no class of their own
            reason = first_line(error)
            raise UnusableInput(f"expected a net that ONNX Runtime can quantize, it says: {reason}") from error
        _save(onnx.load(int8), artifact, path)


def argmax_agreement(
    a: Callable[[Tensor], Tensor], b: Callable[[Tensor], Tensor], x: Tensor, *, batch_size: int = 256
) -> float:
    """Share of the inputs ``x`` (N, C, H, W) in [0, 1] for which two nets, (N, ...) -> (N, K), name the same class."""
    with torch.no_grad():
        same = [a(batch).argmax(1) == b(batch).argmax(1) for batch in x.split(batch_size)]
    return float(torch.cat(same).double().mean())


def _reader(clean: Tensor, *, batch_size: int) -> Any:
    """``clean`` as the calibration data reader that ONNX Runtime asks for."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(clean.split(batch_size))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    return Reader()


def _save(model: onnx.ModelProto, artifact: Artifact, path: Path) -> None:
    """Writes the model with the artifact's marks in its metadata."""
    said = ModelMetadata(artifact.arch, artifact.planted, artifact.inputs, class_names=artifact.class_names)
    for key, value in said.as_text().items():
        model.metadata_props.add(key=key, value=value)
    write_atomically(path, model.SerializeToString(), parents=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the exporter of torch 2.13 says: deprecations, that torchvision is absent, graphs that failed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
