"""``.onnx`` files through ONNX Runtime: logits without gradients, float32 or quantized (QDQ)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from assay.core.errors import UnusableInput, first_line
from assay.core.model import Artifact, ImageSpec
from assay.formats.describe import describe
from assay.formats.metadata import ModelMetadata
from assay.formats.normalization import AS_IT_IS, Normalization
from assay.formats.onnx.to_torch import as_torch
from assay.formats.onnx.weights import stored_weights
from assay.formats.shape import MAX_SIDE, Shape
from assay.io.files import inside, sha256_of

if TYPE_CHECKING:
    import onnx

FORMAT = "onnx"
MAX_BYTES = 2**31  # protobuf's own limit
MAX_EXTERNAL_BYTES = 2**34
INPUT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
CHANNELS = (1, 3, 4)
TRIED = 64
"""Pictures on which the graph in torch is compared with ONNX Runtime; of large ones fewer."""
LEAST_AGREEMENT = 0.9
"""With less of them in common, the graph in torch is another model."""


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
        return self.as_the_graph_takes_it(self._run, x.detach().to("cpu"))

    def as_the_graph_takes_it(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``run`` of ``x`` (N, C, H, W) in the graph's own layout and, if it has one, its batch size."""
        if self.channels_last:
            x = x.permute(0, 2, 3, 1)
        if self.batch is None:
            return run(x)
        # A fixed batch: pieces of that size, the last one padded with its own last picture.
        pieces = []
        for piece in x.split(self.batch):
            padding = piece[-1:].expand(self.batch - len(piece), *piece.shape[1:])
            pieces.append(run(torch.cat([piece, padding]))[: len(piece)])
        return torch.cat(pieces)

    def _run(self, x: Tensor) -> Tensor:
        array = x.contiguous().numpy().astype(INPUT_TYPES[self.input.type])
        return torch.from_numpy(self.session.run([self.output], {self.input.name: array})[0]).float()

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNet:
        return self

    def __reduce__(self) -> tuple[type[OnnxNet], tuple[Path]]:
        return OnnxNet, (self.path,)


class OnnxTwin(nn.Module):
    """What the session of ``net`` computes, in torch, with gradients."""

    def __init__(self, net: OnnxNet, graph: nn.Module) -> None:
        super().__init__()
        self.net, self.program = net, graph  # torch.fx keeps the name `graph` for itself

    def forward(self, x: Tensor) -> Tensor:
        return self.net.as_the_graph_takes_it(self.program, x)


def load_onnx(path: Path, *, normalization: Normalization | None, shape: Shape | None = None) -> Artifact:
    """Loads an ONNX file with one float input (N, C, H, W) or (N, H, W, C) and logits (N, K) as its output.

    The graph takes [0, 1] unless its metadata (``assay.mean``, ``assay.std``) or ``normalization`` say otherwise.
    ``shape`` (C, H, W) is needed only where the graph leaves it open.
    """
    model = checked_model(path)
    said = ModelMetadata.read({entry.key: entry.value for entry in model.metadata_props}, str(path))
    net, stored = OnnxNet(path), stored_weights(model, path)
    known = said.inputs if isinstance(said.inputs, ImageSpec) else None
    inputs = ImageSpec(shape) if shape else known or ImageSpec(_shape(net, path))
    chosen = normalization or said.normalization

    def normalized(module: nn.Module) -> nn.Module:
        return (module if chosen is None else chosen.around(module, inputs.shape[0])).eval()

    twin, note, opaque = _twin(model, net, path, inputs.shape)
    artifact = describe(
        normalized(net),
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
        notes=(*artifact.notes, *note, *((AS_IT_IS,) if assumed else ())),
        normalization_unknown=assumed,
        digest=sha256_of([path, *external]),
        planted=said.planted,
        arch=said.arch,
        differentiable=False,
        surrogate=None if twin is None else normalized(twin),
        no_gradient_reason=opaque,
        weights=stored.values,
        quantization_scales=stored.steps,
    )


def _twin(
    model: onnx.ModelProto, net: OnnxNet, path: Path, shape: Shape
) -> tuple[nn.Module | None, tuple[str, ...], str]:
    """The graph with gradients and a note on how far it agrees with ONNX Runtime; or why there is none."""
    count = TRIED if shape[1] * shape[2] <= 64 * 64 else TRIED // 8
    x = made_up_pictures(count, shape)
    try:
        twin = OnnxTwin(net, as_torch(model, path, source=net.input.name, result=net.output)).eval()
        with torch.no_grad():
            same = int((twin(x).argmax(1) == net(x).argmax(1)).sum())
    except UnusableInput as why:
        return None, (), str(why).removeprefix(f"{path}: ")
    except Exception as error:  # a graph that the operators in torch do not bear, in any way
        return None, (), f"the graph does not run in torch: {first_line(error)}"
    if same < LEAST_AGREEMENT * count:
        return (
            None,
            (),
            f"in torch it names another class than ONNX Runtime on {count - same} of {count} pictures",
        )
    return twin, (f"for gradients it runs in torch: the class of ONNX Runtime on {same} of {count} pictures",), ""


def made_up_pictures(count: int, shape: Shape) -> Tensor:
    """(count, C, H, W) in [0, 1]: coarse and fine noise, the same every time."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    fine = torch.rand(count, channels, height, width, generator=generator)
    return 0.7 * nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * fine


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold tensors of it; none where it cannot be parsed or they lie elsewhere."""
    try:
        model = checked_model(path)
        return sorted({inside(path.parent, name) for name in _external_names(model, path)})
    except UnusableInput:  # loading it says why
        return []


def checked_model(path: Path) -> onnx.ModelProto:
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
        raise UnusableInput(f"{path}: ONNX Runtime cannot load it: {_said(error)}") from None


def _said(error: Exception) -> str:
    """What ONNX Runtime says, without the places in its own source and the path, which is said already."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (Load model from .*? failed: ?)?", "", first_line(error))
    return re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z])", "", text)


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
