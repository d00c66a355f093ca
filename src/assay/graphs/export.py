"""ONNX files: export in full precision, and static int8 quantization as ONNX Runtime deploys it."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import Artifact, digest_of_module
from assay.formats.metadata import ModelMetadata
from assay.graphs.trace import ExampleInputs, exported_program
from assay.io.atomic import write_atomically

if TYPE_CHECKING:
    import onnx

OPSET = 20  # torch 2.13 exports to it without a version conversion
COLOR_CODE = re.compile(r"\x1b\[")  # separates the exporter's message from its colored report
INPUT, OUTPUT = "input", "logits"
FULL_FILE, INT8_FILE = "model.onnx", "model-int8.onnx"


def to_onnx(artifact: Artifact, path: Path, *, opset: int = OPSET) -> None:
    """Write ``artifact`` as one ONNX file: ``input`` (N, C, H, W) float32 in [0, 1] -> ``logits``, any N.

    The normalization is inside the graph. The file's metadata hold the ``planted`` tag and the architecture. The file
    appears complete or not at all.

    Args:
        artifact: Image classifier with torch weights.
        path: Path of the file.
        opset: ONNX operator set.

    Raises:
        UnusableInput: The model cannot be exported.
    """
    if not artifact.differentiable:
        raise UnusableInput(f"expected a model with torch weights to export, got format {artifact.format}")
    if artifact.num_classes is None:
        raise UnusableInput(f"expected a classifier to export, got the encoder {artifact.name}")
    example = torch.rand(2, *artifact.image_spec.shape, generator=torch.Generator().manual_seed(0))
    _save(to_onnx_graph(artifact.module, example, opset=opset), artifact, path)


def to_onnx_graph(module: nn.Module, example: Tensor, *, opset: int = OPSET) -> onnx.ModelProto:
    """Return ``module`` in eval mode as an ONNX graph: ``input`` (N, ...) -> ``logits``, any N.

    Args:
        module: The model; unchanged.
        example: Two inputs (2, ...).
        opset: ONNX operator set.

    Raises:
        UnusableInput: The model cannot be exported.
    """
    return _onnx_graph(module, digest_of_module(module), ExampleInputs(example), opset)


@lru_cache(maxsize=2)  # the model and its reference
def _onnx_graph(module: nn.Module, digest: str, inputs: ExampleInputs, opset: int) -> onnx.ModelProto:
    """Export a model, from its traced graph if there is one. Cached, because all readers need the same file.

    Args:
        module: The model.
        digest: Of its weights, which training changes.
        inputs: Two inputs.
        opset: ONNX operator set.
    """
    source: nn.Module | torch.export.ExportedProgram
    source = copied = copy.deepcopy(module).eval().requires_grad_(False)
    with contextlib.ExitStack() as stack:
        with suppress(UnusableInput):  # the exporter has other ways to trace
            source = stack.enter_context(exported_program(copied, inputs.x, digest))
        return _convert(source, inputs.x, opset)


def _convert(source: nn.Module | torch.export.ExportedProgram, example: Tensor, opset: int) -> onnx.ModelProto:
    try:
        with _without_exporter_output(), _with_kept_operators():
            program = torch.onnx.export(
                source,  # type: ignore[arg-type]
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps all errors in its own classes
        reason = COLOR_CODE.split((str(error).strip() or type(error).__name__).splitlines()[0])[0].strip()
        raise UnusableInput(f"expected a model that torch.onnx can export, got its error: {reason}") from error
    assert program is not None
    return program.model_proto


def to_onnx_int8(artifact: Artifact, clean: Tensor, path: Path, *, per_channel: bool, opset: int = OPSET) -> None:
    """Write ``artifact`` as ONNX Runtime's static QDQ file: uint8 activations, int8 weights, otherwise its defaults.

    Calibration uses minimum and maximum, after ONNX Runtime's own pre-processing. Metadata and writing as in
    :func:`to_onnx`.

    Args:
        artifact: Image classifier with torch weights.
        clean: Calibration images (N, C, H, W) in [0, 1].
        path: Path of the file.
        per_channel: One weight scale per output channel, else per tensor.
        opset: ONNX operator set.

    Raises:
        UnusableInput: The model cannot be exported or quantized.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as directory:
        full, prepared, int8 = (str(Path(directory) / name) for name in ("full.onnx", "prepared.onnx", "int8.onnx"))
        to_onnx(artifact, Path(full), opset=opset)  # the metadata follow with the last file
        try:
            quant_pre_process(full, prepared)
        except Exception:  # it supports only some operators in graphs with data-dependent shapes
            quant_pre_process(full, prepared, skip_symbolic_shape=True)
        try:
            quantize_static(
                prepared,
                int8,
                _calibration_reader(clean, batch_size=64),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # it has no error class of its own
            raise UnusableInput(
                f"expected a model that ONNX Runtime can quantize, got its error: {first_line(error)}"
            ) from error
        _save(onnx.load(int8), artifact, path)


def argmax_agreement(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], x: Tensor, *, batch_size: int = 256
) -> float:
    """Return the fraction of inputs with the same predicted class from two models.

    Args:
        first: (N, ...) -> (N, K).
        second: (N, ...) -> (N, K).
        x: Inputs (N, C, H, W) in [0, 1].
        batch_size: Inputs per forward pass.
    """
    with torch.no_grad():
        same = [first(batch).argmax(1) == second(batch).argmax(1) for batch in x.split(batch_size)]
    return float(torch.cat(same).double().mean())


def _calibration_reader(clean: Tensor, *, batch_size: int) -> Any:
    """Return ``clean`` as a calibration data reader of ONNX Runtime."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(clean.split(batch_size))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    return Reader()


def _save(model: onnx.ModelProto, artifact: Artifact, path: Path) -> None:
    """Write the model with the artifact's facts in its metadata."""
    model = copy.deepcopy(model)  # the exported graph has other readers
    metadata = ModelMetadata(artifact.arch, artifact.planted, artifact.inputs, class_names=artifact.class_names)
    for key, value in metadata.as_text().items():
        model.metadata_props.add(key=key, value=value)
    write_atomically(path, model.SerializeToString(), parents=True)


@contextmanager
def _without_exporter_output() -> Iterator[None]:
    """Suppress output of the exporter of torch 2.13: deprecations, missing torchvision, failed graphs."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _with_kept_operators() -> Iterator[None]:
    """Let the exporter of torch 2.13 reuse its tables of operators; it builds one for each export, in over a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    original, kept = _operator_tables()
    ONNXRegistry.from_torchlib = kept  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = original  # type: ignore[method-assign]


@lru_cache(maxsize=1)
def _operator_tables() -> tuple[Any, Any]:
    """Return the exporter's method that builds a table of operators, and the same with a cache."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return vars(ONNXRegistry)["from_torchlib"], staticmethod(lru_cache(maxsize=2)(ONNXRegistry.from_torchlib))
