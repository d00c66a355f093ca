"""``.onnx`` files through ONNX Runtime: logits without gradients, float32 or quantized (QDQ)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from assay.artifact import Artifact, ImageSpec
from assay.errors import UnusableInput, first_line
from assay.formats.files import inside, sha256_of
from assay.formats.metadata import ModelMetadata
from assay.formats.module import describe
from assay.formats.normalization import AS_IT_IS, Normalization
from assay.formats.shape import MAX_SIDE, Shape

if TYPE_CHECKING:
    import numpy as np
    import onnx

FORMAT = "onnx"
MAX_BYTES = 2**31  # protobuf's own limit
MAX_EXTERNAL_BYTES = 2**34
INPUT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
CHANNELS = (1, 3, 4)


class OnnxNet(nn.Module):
    """An ONNX Runtime session as a net: (N, C, H, W) -> (N, K), no gradients. Copies share the session."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.session = _session(path)
        self.input = _image_input(self.session, path)
        self.batch = self.input.shape[0] if isinstance(self.input.shape[0], int) else None
        self.channels_last = _channels_last(self.input.shape)
        self.output = _logits_output(self.session, path)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().to("cpu")
        if self.channels_last:
            x = x.permute(0, 2, 3, 1)
        if self.batch is None:
            return self._run(x)
        # A fixed batch: pieces of that size, the last one padded with its own last picture.
        pieces = []
        for piece in x.split(self.batch):
            padding = piece[-1:].expand(self.batch - len(piece), *piece.shape[1:])
            pieces.append(self._run(torch.cat([piece, padding]))[: len(piece)])
        return torch.cat(pieces)

    def _run(self, x: Tensor) -> Tensor:
        array = x.contiguous().numpy().astype(INPUT_TYPES[self.input.type])
        return torch.from_numpy(self.session.run([self.output], {self.input.name: array})[0]).float()

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNet:
        return self

    def __reduce__(self) -> tuple[type[OnnxNet], tuple[Path]]:
        return OnnxNet, (self.path,)


def load_onnx(path: Path, *, normalization: Normalization | None, shape: Shape | None = None) -> Artifact:
    """Loads an ONNX file with one float input (N, C, H, W) or (N, H, W, C) and logits (N, K) as its output.

    The graph takes [0, 1] unless its metadata (``assay.mean``, ``assay.std``) or ``normalization`` say otherwise.
    ``shape`` (C, H, W) is needed only where the graph leaves it open.
    """
    model = _checked_model(path)
    said = ModelMetadata.read({entry.key: entry.value for entry in model.metadata_props}, str(path))
    net = OnnxNet(path)
    inputs = ImageSpec(shape) if shape else said.inputs or ImageSpec(_shape(net, path))
    chosen = normalization or said.normalization
    artifact = describe(
        net.eval() if chosen is None else chosen.around(net, inputs.shape[0]).eval(),
        inputs,
        num_classes=None,
        class_names=said.class_names,
        format=FORMAT,
        name=path.resolve().parent.name if path.name == "model.onnx" else path.stem,
    )
    external = sorted({inside(path.parent, name) for name in _external_names(model, path)})
    assumed = chosen is None and said.inputs is None  # assay's own files have their normalization inside
    return replace(
        artifact,
        notes=(*artifact.notes, AS_IT_IS) if assumed else artifact.notes,
        range_assumed=assumed,
        digest=sha256_of([path, *external]),
        planted=said.planted,
        arch=said.arch,
        differentiable=False,
        weights=_weights(model, path),
    )


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold tensors of it; none where it cannot be parsed or they lie elsewhere."""
    try:
        model = _checked_model(path)
        return sorted({inside(path.parent, name) for name in _external_names(model, path)})
    except UnusableInput:  # loading it says why
        return []


def _checked_model(path: Path) -> onnx.ModelProto:
    """The parsed file, its external data not yet read but known to lie in its folder."""
    import onnx
    from google.protobuf.message import DecodeError

    if path.stat().st_size > MAX_BYTES:
        raise UnusableInput(f"{path}: expected an ONNX file of at most {MAX_BYTES} bytes, came {path.stat().st_size}")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, RuntimeError, OSError) as error:
        raise UnusableInput(f"{path}: is not a valid ONNX file ({first_line(error)}); export it again") from None
    if not model.graph.node:
        raise UnusableInput(f"{path}: is not a valid ONNX file: its graph is empty; export it again")
    external = {name: inside(path.parent, name) for name in _external_names(model, path)}
    total = sum(file.stat().st_size for file in external.values())
    if total > MAX_EXTERNAL_BYTES:
        raise UnusableInput(f"{path}: expected at most {MAX_EXTERNAL_BYTES} bytes of external data, came {total}")
    return model


def _external_names(model: onnx.ModelProto, path: Path) -> list[str]:
    """The files, relative to the model's folder, that hold tensors of the model."""
    import onnx

    names = []
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names += [entry.value for entry in tensor.external_data if entry.key == "location"] or [""]
    if any(not name or Path(name).is_absolute() for name in names):
        raise UnusableInput(f"{path}: its external data leads out of the model's folder; all files must lie inside")
    return names


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the model: in its graph, in graphs inside nodes, in its functions."""
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
        else:
            for attribute in nodes.pop().attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                graphs += [graph for graph in (attribute.g, *attribute.graphs) if graph.node or graph.initializer]


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its warnings would go to standard error behind our back
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base class
        raise UnusableInput(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from None


def _image_input(session: Any, path: Path) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES or len(inputs[0].shape) != 4:
        came = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in inputs)
        raise UnusableInput(f"{path}: expected one float input (N, channels, height, width), came {came or 'none'}")
    return inputs[0]


def _channels_last(shape: Sequence[int | str | None]) -> bool:
    return shape[3] in CHANNELS and shape[1] not in CHANNELS


def _logits_output(session: Any, path: Path) -> str:
    outputs = [value for value in session.get_outputs() if len(value.shape) == 2]
    named = [value for value in outputs if value.name == "logits"] or outputs
    if not named:
        came = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in session.get_outputs())
        raise UnusableInput(f"{path}: expected an output of logits (N, classes), came {came}")
    return named[0].name


def _shape(net: OnnxNet, path: Path) -> Shape:
    sides = net.input.shape[1:]
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides):
        raise UnusableInput(
            f"{path}: expected an input of fixed channels, height and width, came {net.input.shape}; give --shape "
            "C,H,W, or set its metadata assay.shape to [channels, height, width]"
        )
    return (sides[2], sides[0], sides[1]) if net.channels_last else (sides[0], sides[1], sides[2])


def _weights(model: onnx.ModelProto, path: Path) -> Mapping[str, np.ndarray]:
    """The float initializers by name; quantized ones as the float32 values that they stand for."""
    import numpy as np
    from onnx import numpy_helper

    raw = {t.name: numpy_helper.to_array(t, base_dir=str(path.parent)) for t in model.graph.initializer}
    weights: dict[str, np.ndarray] = {}
    steps = {name for node in model.graph.node if node.op_type.endswith("QuantizeLinear") for name in node.input[1:]}
    steps |= {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.input[1:]}
    for name, array in raw.items():
        if array.dtype.kind == "f" and array.ndim and name not in steps:
            weights[name] = array.astype(np.float32)
        if array.dtype.kind == "f" and (np.isnan(array).any() or (array.ndim > 1 and np.isinf(array).any())):
            raise UnusableInput(f"{path}: initializer {name!r} holds NaN or infinite values; expected finite weights")
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in raw and node.input[1] in raw:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            zero = raw.get(node.input[2]) if len(node.input) > 2 else None
            value = _dequantized(raw[node.input[0]], raw[node.input[1]], zero, axis)
            if value is not None:
                weights[node.input[0].removesuffix("_quantized")] = value
    return weights


def _dequantized(q: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int) -> np.ndarray | None:
    """(q - zero) * scale, per tensor or along ``axis``; None for blockwise scales, which are left as they are."""
    import numpy as np

    if scale.ndim > 1:
        return None
    shape = [1] * q.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    shift = 0.0 if zero is None else zero.astype(np.float32).reshape(shape if zero.size > 1 else [1] * q.ndim)
    return (q.astype(np.float32) - shift) * scale.astype(np.float32).reshape(shape)
