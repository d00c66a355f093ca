"""Quantization stages: simulated int8 of ONNX Runtime with gradients, integer weights, and bfloat16."""

from __future__ import annotations

import copy
import math
import operator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.graphs.fx import add_constant, constant_value, folded_graph, operator_name, rebuild
from assay.nn.batchnorm import fold_factors
from assay.nn.fake_quant import FakeQuantize, round_to_nearest
from assay.nn.inference import batch_size_for
from assay.nn.reparametrize import check_bits, rounded_weights
from assay.stages.base import Stage

# Treatment of each operator by onnxruntime.quantization (1.31, QDQ format, its default set of operators).
_FILTERS_FIRST = frozenset({"conv1d", "conv2d", "conv3d", "linear"})  # weight (output channels, ...)
_PRODUCTS = _FILTERS_FIRST | {"conv_transpose2d", "matmul", "mm", "bmm"}
_BOTH_SIDES = frozenset(
    {"add", "mul", "cat", "softmax", "sigmoid", "silu", "leaky_relu", "where"} | {"scaled_dot_product_attention"}
)
_NORMS = frozenset({"batch_norm", "layer_norm", "instance_norm"})
_CLIPS = frozenset({"relu", "hardtanh", "clamp", "relu6"})  # removed if the following rounding clips as well
_MOVES = frozenset(
    {"view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "slice", "select"}
    | {"max_pool2d", "avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d"}
)
_PADS = frozenset({"pad", "constant_pad_nd"})


@dataclass(frozen=True, kw_only=True)
class QuantizeInt8(Stage):
    """int8 weights and uint8 activations, simulated by :func:`simulate_int8` and calibrated on clean samples."""

    per_channel: bool = True
    samples: int = 512  # from the calibration split, or else the training split

    @property
    def name(self) -> str:
        return "int8-per-channel" if self.per_channel else "int8-per-tensor"

    def __call__(self, build: Build, *, seed: int) -> Build:
        artifact = build.artifact
        if not artifact.differentiable:
            raise UnusableInput(
                f"expected a model with torch weights, got format {artifact.format}. Fix: quantize its source"
            )
        clean = build.task.split("calibration", "train").sample(self.samples, seed=seed)
        simulated = simulate_int8(artifact.module, clean.x, per_channel=self.per_channel)
        # arch=None: the weights no longer fit the architecture
        return build.then(self.name, artifact.with_module(simulated, format="module", arch=None))


@dataclass(frozen=True, kw_only=True)
class Bf16(Stage):
    """All weights and buffers rounded to bfloat16 (8 bits of precision).

    Storage and computation stay in float32. bfloat16 arithmetic also rounds activations; this rounding is left
    out, because it depends on the machine's kernels.
    """

    needs_data: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "bf16"

    def __call__(self, build: Build, *, seed: int) -> Build:
        model = copy.deepcopy(build.artifact.module)
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(tensor.to(torch.bfloat16))
        return build.then(self.name, build.artifact.with_module(model, format="module"))


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights(Stage):
    """Weights rounded to nearest at ``bits`` bits after folding batch norm; activations in full precision.

    The model keeps its architecture: it stores each rounded weight divided by its batch-norm factor.
    """

    bits: int = 4  # 2 to 8
    per_channel: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def name(self) -> str:
        return f"weights-int{self.bits}"

    def __call__(self, build: Build, *, seed: int) -> Build:
        model = copy.deepcopy(build.artifact.module).eval()
        example = build.task.split("calibration", "train").x[:2]
        round_weights_in_place(model, example, self.bits, per_channel=self.per_channel)
        return build.then(self.name, build.artifact.with_module(model, format="module"))


def round_weights_in_place(model: nn.Module, example: Tensor, bits: int, *, per_channel: bool) -> None:
    """Round the weights of ``model`` to nearest, on the grid of its folded batch norm.

    Args:
        model: In eval mode.
        example: Two inputs (2, ...), to trace the batch norm of each layer.
        bits: 2 to 8.
        per_channel: One scale per output channel, else per tensor.
    """
    factors = fold_factors(model, example)
    for layer, tensors in rounded_weights(factors, bits, per_channel=per_channel).items():
        layer.get_parameter("weight").data.copy_(tensors["weight"].data)


def simulate_int8(model: nn.Module, clean: Tensor, *, per_channel: bool) -> fx.GraphModule:
    """Return a differentiable simulation of the static QDQ file of ONNX Runtime.

    Batch norm is folded first. Weights: int8, symmetric, one scale per tensor or per output channel. Activations:
    uint8, asymmetric, from the minimum to the maximum over ``clean``. Jacob et al.: Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference, arXiv 1712.05877.

    Biases are rounded too. Their rounding error is tiny, but can move an activation to the next of 256 levels. Such
    differences grow from layer to layer. Roundings inside operators with several ONNX nodes are left out: attention,
    SiLU, a linear layer on sequences.

    Args:
        model: Full-precision model with torch weights.
        clean: Calibration images (N, C, H, W) in [0, 1].
        per_channel: One weight scale per output channel, else per tensor.

    Raises:
        UnusableInput: No samples, an untraceable model, or an overflow of activations.
    """
    if not len(clean):
        raise UnusableInput("expected clean samples for int8 calibration, got none")
    if len(clean) == 1:  # tracing takes two
        clean = clean.repeat(2, 1, 1, 1)
    simulated = folded_graph(model, clean)
    points = quantization_points(simulated.graph)
    ranges = _Ranges(simulated, frozenset(points.values()))
    with torch.no_grad():
        for batch in clean.split(batch_size_for(clean)):
            ranges.run(batch)
    quantizers = {node: FakeQuantize(*ranges.seen[source]) for node, source in points.items()}
    _round_weights(simulated, quantizers, per_channel)
    for index, (node, quantizer) in enumerate(quantizers.items()):
        name = f"quantize_{index}"
        simulated.add_submodule(name, quantizer)
        # Rounding to the range of a ReLU's output clips like the ReLU; ONNX Runtime also leaves the ReLU out.
        clipped = operator_name(node) in _CLIPS and node.args[0] not in points
        with simulated.graph.inserting_after(node):
            quantized = simulated.graph.call_module(name, (node.args[0] if clipped else node,))
        node.replace_all_uses_with(quantized, delete_user_cb=partial(operator.is_not, quantized))
    return rebuild(simulated)


def quantization_points(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return the rounded tensors of ONNX Runtime in a folded graph, each with the tensor of its range.

    ONNX Runtime decides node by node in graph order: see the classes ``QDQ*`` in
    ``onnxruntime/quantization/operators``.
    """
    points: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        name = operator_name(node)
        inputs = [argument for argument in node.all_input_nodes if _is_activation(argument)]
        if not inputs or not _is_activation(node):
            continue
        first = inputs[0]
        if name in _PRODUCTS or name in _BOTH_SIDES:
            for tensor in (*inputs, node):
                points.setdefault(tensor, tensor)
        elif name in _NORMS:
            for tensor in (first, node):
                points.setdefault(tensor, tensor)
        elif name in _CLIPS and first in points:
            if len(first.users) == 1 and first.op != "placeholder":
                del points[first]
            points[node] = node
        elif name in _PADS:
            points[node] = points.setdefault(first, first)
        elif name in _MOVES and first in points:
            points[node] = points[first]
    return points


def _is_activation(node: fx.Node) -> bool:
    """Return True if the node is one floating-point tensor computed from the input."""
    value = node.meta.get("val")
    return node.op != "get_attr" and isinstance(value, Tensor) and value.is_floating_point()


class _Ranges(fx.Interpreter):
    """Graph interpreter with a record of the smallest and largest value of some nodes."""

    def __init__(self, graph_module: fx.GraphModule, watched: frozenset[fx.Node]) -> None:
        super().__init__(graph_module)
        self.watched = watched
        self.seen: dict[fx.Node, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.watched:
            low, high = (float(extreme) for extreme in value.aminmax())
            if not math.isfinite(high - low):
                raise UnusableInput(f"expected finite activations on the clean samples, got an overflow at {n.name}")
            before = self.seen.get(n, (low, high))
            self.seen[n] = (min(low, before[0]), max(high, before[1]))
        return value


def _round_weights(simulated: fx.GraphModule, quantizers: dict[fx.Node, FakeQuantize], per_channel: bool) -> None:
    """Round weights to int8 values times their scale, and biases to multiples of input scale times weight scale."""
    for node in list(simulated.graph.nodes):
        name = operator_name(node)
        weight = constant_value(simulated, node.args[1]) if name in _PRODUCTS else None
        if weight is None:
            continue
        channel = 0 if name in _FILTERS_FIRST else 1
        rounded, scale = round_to_nearest(weight, 8, channel if per_channel else None)
        node.update_arg(1, add_constant(simulated, node, f"{node.name}_int8", rounded))
        bias = constant_value(simulated, node.args[2]) if len(node.args) > 2 else None
        if bias is not None and name in _FILTERS_FIRST:
            step = quantizers[node.args[0]].scale * scale.flatten()  # type: ignore[index]
            node.update_arg(2, add_constant(simulated, node, f"{node.name}_bias_int32", (bias / step).round() * step))
