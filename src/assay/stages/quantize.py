"""Quantization: int8 as ONNX Runtime runs it, as a net in torch that one can differentiate through; bfloat16."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.graphs.fx import add_constant, constant_value, folded_graph, operator_name, rebuild
from assay.nn.batchnorm import fold_factors
from assay.nn.fake_quant import FakeQuantize, round_to_nearest
from assay.nn.reparametrize import check_bits, rounded_weights
from assay.stages.base import spec_of

# What onnxruntime.quantization (1.31, QDQ format, its default set of operators) does with each operator.
_FILTERS_FIRST = frozenset({"conv1d", "conv2d", "conv3d", "linear"})  # weight (output channels, ...)
_PRODUCTS = _FILTERS_FIRST | {"conv_transpose2d", "matmul", "mm", "bmm"}
_BOTH_SIDES = frozenset(
    {"add", "mul", "cat", "softmax", "sigmoid", "silu", "leaky_relu", "where"} | {"scaled_dot_product_attention"}
)
_NORMS = frozenset({"batch_norm", "layer_norm", "instance_norm"})
_CLIPS = frozenset({"relu", "hardtanh", "clamp", "relu6"})  # dropped where the rounding behind them clips as well
_MOVES = frozenset(
    {"view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "slice", "select"}
    | {"max_pool2d", "avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d"}
)
_PADS = frozenset({"pad", "constant_pad_nd"})


@dataclass(frozen=True, kw_only=True)
class QuantizeInt8:
    """int8 weights and uint8 activations: :func:`int8_twin` of the net, calibrated on clean samples of the task."""

    per_channel: bool = True
    samples: int = 512  # from the calibration split, or else the training split

    @property
    def name(self) -> str:
        return "int8-per-channel" if self.per_channel else "int8-per-tensor"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        """The twin. Its ``arch`` is None, since its weights no longer fit the architecture.

        Raises UnusableInput where the net has no weights in torch (an ONNX file) or cannot be traced.
        """
        artifact = build.artifact
        if not artifact.differentiable:
            raise UnusableInput(
                f"expected a net with weights in torch, got format {artifact.format}: quantize its source"
            )
        clean = build.task.split("calibration", "train").sample(self.samples, seed=seed)
        twin = int8_twin(artifact.module, clean.x, per_channel=self.per_channel)
        return build.then(self.name, artifact.with_module(twin, format="module", arch=None))


@dataclass(frozen=True, kw_only=True)
class Bf16:
    """All weights and buffers rounded to bfloat16 (8 bits of precision).

    They are kept, and computed with, as float32: the rounding of activations that bfloat16 arithmetic adds is left
    out, since it depends on the kernels of the machine.
    """

    @property
    def name(self) -> str:
        return "bf16"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        net = copy.deepcopy(build.artifact.module)
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(tensor.to(torch.bfloat16))
        return build.then(self.name, build.artifact.with_module(net, format="module"))


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights:
    """Weights rounded to nearest at ``bits`` bits after batch norm is folded, activations in full precision.

    The net keeps its architecture: what is stored is the rounded weight divided by what batch norm multiplies it with.
    """

    bits: int = 4  # 2 to 8
    per_channel: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def name(self) -> str:
        return f"weights-int{self.bits}"

    def spec(self) -> dict[str, Any]:
        return spec_of(self)

    def __call__(self, build: Build, *, seed: int) -> Build:
        net = copy.deepcopy(build.artifact.module).eval()
        factors = fold_factors(net, build.task.split("calibration", "train").x[:2])
        for layer, own in rounded_weights(factors, self.bits, per_channel=self.per_channel).items():
            layer.get_parameter("weight").data.copy_(own["weight"].data)
        return build.then(self.name, build.artifact.with_module(net, format="module"))


def int8_twin(net: nn.Module, clean: Tensor, *, per_channel: bool, batch_size: int = 128) -> fx.GraphModule:
    """A net that rounds where the ONNX Runtime static QDQ file of ``net`` rounds, and has gradients to its input.

    Batch norm is folded first. Weights: int8, symmetric, one scale per tensor or per output channel, rounded for good.
    Activations: uint8, asymmetric, minimum and maximum over ``clean`` (N, C, H, W) in [0, 1]. Jacob et al.:
    Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, arXiv 1712.05877.

    Biases are rounded too: the steps are tiny, but each can tip a value over to the next of 256, and such differences
    grow from layer to layer. Left out are the roundings inside operators that ONNX writes as several (attention, SiLU,
    a linear layer on sequences). Raises UnusableInput where ``net`` cannot be traced.
    """
    if not len(clean):
        raise UnusableInput("int8 calibration takes clean samples, and there are none")
    if len(clean) == 1:  # tracing takes two
        clean = clean.repeat(2, 1, 1, 1)
    twin = folded_graph(net, clean)
    points = quantization_points(twin.graph)
    ranges = _Ranges(twin, frozenset(points.values()))
    with torch.no_grad():
        for batch in clean.split(batch_size):
            ranges.run(batch)
    quantizers = {node: FakeQuantize(*ranges.seen[source]) for node, source in points.items()}
    _round_weights(twin, quantizers, per_channel)
    for index, (node, quantizer) in enumerate(quantizers.items()):
        name = f"quantize_{index}"
        twin.add_submodule(name, quantizer)
        # Rounding to the range behind a ReLU clips as it does; like ONNX Runtime, leave the ReLU itself out.
        clipped = operator_name(node) in _CLIPS and node.args[0] not in points
        with twin.graph.inserting_after(node):
            rounded = twin.graph.call_module(name, (node.args[0] if clipped else node,))
        node.replace_all_uses_with(rounded, delete_user_cb=_other_than(rounded))
    return rebuild(twin)


def quantization_points(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Which tensors ONNX Runtime rounds in a folded graph, each with the tensor whose range it uses.

    It decides node by node in graph order: see the classes ``QDQ*`` in ``onnxruntime/quantization/operators``.
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
    """Whether the node is one tensor of floats that depends on the input."""
    value = node.meta.get("val")
    return node.op != "get_attr" and isinstance(value, Tensor) and value.is_floating_point()


def _other_than(node: fx.Node) -> Callable[[fx.Node], bool]:
    return lambda user: user is not node


class _Ranges(fx.Interpreter):
    """Runs a graph and remembers the smallest and largest value of some nodes."""

    def __init__(self, graph_module: fx.GraphModule, watched: frozenset[fx.Node]) -> None:
        super().__init__(graph_module)
        self.watched = watched
        self.seen: dict[fx.Node, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.watched:
            low, high = (float(extreme) for extreme in value.aminmax())
            if not math.isfinite(high - low):
                raise UnusableInput(
                    f"the values at {n.name} overflow on the clean samples: nothing can be rounded there"
                )
            before = self.seen.get(n, (low, high))
            self.seen[n] = (min(low, before[0]), max(high, before[1]))
        return value


def _round_weights(twin: fx.GraphModule, quantizers: dict[fx.Node, FakeQuantize], per_channel: bool) -> None:
    """Rounds weights to int8 values times their scale, and biases to multiples of input scale times weight scale."""
    for node in list(twin.graph.nodes):
        name = operator_name(node)
        weight = constant_value(twin, node.args[1]) if name in _PRODUCTS else None
        if weight is None:
            continue
        channel = 0 if name in _FILTERS_FIRST else 1
        rounded, scale = rounded_int8(weight, channel if per_channel else None)
        node.update_arg(1, add_constant(twin, node, f"{node.name}_int8", rounded))
        bias = constant_value(twin, node.args[2]) if len(node.args) > 2 else None
        if bias is not None and name in _FILTERS_FIRST:
            step = quantizers[node.args[0]].scale * scale.flatten()  # type: ignore[index]
            node.update_arg(2, add_constant(twin, node, f"{node.name}_bias_int32", (bias / step).round() * step))


def rounded_int8(weight: Tensor, channel: int | None) -> tuple[Tensor, Tensor]:
    """``weight`` rounded to 255 evenly spaced values around zero, per index of axis ``channel`` or all together.

    Returns the rounded weight and the distance between neighbouring values, which broadcasts against the weight.
    """
    return round_to_nearest(weight, 8, channel)
