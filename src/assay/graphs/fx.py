"""Flat graphs of ATen operators, traced from a model, with batch norm folded into the preceding convolutions.

``torch.export`` handles every way to write a model (functional or module ReLU, slices, Hugging Face classes). The ONNX
exporter uses it too: an untraceable model has no ONNX export either.
"""

from __future__ import annotations

import copy
import operator
from contextlib import suppress
from functools import lru_cache

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from assay.core.errors import NoSuchVariant, UnusableInput
from assay.core.model import digest_of_module
from assay.formats.onnx.module import OnnxGraph
from assay.graphs.trace import ExampleInputs, trace_slot

_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_COPIES = frozenset({"clone", "alias", "detach", "contiguous", "dropout", "lift_fresh_copy"})
_SLICE_END = 2**63 - 1  # end of a slice over a whole axis


def folded_graph(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Trace a copy of ``model`` in eval mode as an ATen graph with the same output up to float rounding.

    The graph has no in-place operators and no operators without effect. Each batch norm is folded into the preceding
    convolution if it is the only reader of the convolution.

    Args:
        model: Model to trace.
        example: (N, C, H, W) images, at least two.

    Returns:
        Graph module with frozen parameters.

    Raises:
        UnusableInput: ``model`` cannot be traced, or the graph does not reproduce its outputs.
    """
    return copy.deepcopy(_folded_graph(model, digest_of_module(model), ExampleInputs(example[:8].clone())))


@lru_cache(maxsize=2)
def _folded_graph(model: nn.Module, digest: str, inputs: ExampleInputs) -> fx.GraphModule:
    """Trace and fold. Cached, because the variants and the searches need the same graph.

    Args:
        model: Model to trace.
        digest: Of its weights, which training changes.
        inputs: Example inputs.
    """
    if any(isinstance(module, OnnxGraph) and module.is_quantized for module in model.modules()):
        # Tracing would also lose the gradients of its rounding.
        raise NoSuchVariant(
            "expected a floating-point model, got one that is quantized already: audited without variants"
        )
    model = copy.deepcopy(model).eval().requires_grad_(False)
    slot = trace_slot(model, inputs.x)
    folded = None
    if slot.trace is not None:
        with suppress(UnusableInput):  # other outputs than the model's: it needs a trace of its own
            folded = _fold_and_compare(slot.trace.with_weights(model), model, inputs.x)
    if folded is None:
        folded = _fold_and_compare(slot.fill(model, inputs.x[:2]).with_weights(model), model, inputs.x)
    slot.checked.add(digest)
    return folded


def _fold_and_compare(graph_module: fx.GraphModule, model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Fold a flat graph, and compare its outputs with those of the model.

    Args:
        graph_module: Flat graph with the weights of the model; changed.
        model: The model, in eval mode.
        example: (N, C, H, W) images.

    Raises:
        UnusableInput: The outputs differ, or are not finite.
    """
    _drop_copies(graph_module.graph)
    _views_as_reshapes(graph_module.graph)
    _plain_batch_norms(graph_module.graph)
    _fold(graph_module)
    folded = rebuild(graph_module)
    with torch.no_grad():
        expected, got = model(example), folded(example)
    if not expected.isfinite().all():
        raise UnusableInput("expected finite outputs on the clean samples, got NaN or infinity: values overflow")
    if not torch.allclose(expected, got, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        difference = float((expected - got).abs().max())
        raise UnusableInput(
            f"expected a traced graph with the model's outputs, got a difference of {difference:.3g}. "
            "Fix: make the forward pass in eval mode depend on the input only"
        )
    _log_of_softmax(folded.graph)
    return rebuild(folded)


def rebuild(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph module without the parameters and buffers unused by its graph."""
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    return fx.GraphModule(graph_module, graph_module.graph)


def operator_name(node: fx.Node) -> str:
    """Return ``conv2d`` for ``aten.conv2d.default``, ``add`` for ``aten.add.Tensor``; "" if ``node`` is no call."""
    if node.op != "call_function":
        return ""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def constant_value(graph_module: fx.GraphModule, node: fx.node.Argument) -> Tensor | None:
    """Return the parameter or buffer of a ``get_attr`` node, or None for any other argument.

    Args:
        graph_module: Module of the graph.
        node: Argument of an operator.
    """
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    return operator.attrgetter(str(node.target))(graph_module)


def add_constant(graph_module: fx.GraphModule, before: fx.Node, name: str, value: Tensor) -> fx.Node:
    """Store a tensor as a frozen parameter.

    Args:
        graph_module: Module of the graph.
        before: Insertion point of the new node.
        name: Name without dots; underscores are appended if it is taken.
        value: Tensor to store.

    Returns:
        The new node, with the parameter as its value.
    """
    while hasattr(graph_module, name):
        name += "_"
    graph_module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(name)


def _drop_copies(graph: fx.Graph) -> None:
    """Remove operators without effect on their input."""
    for node in list(graph.nodes):
        if _is_copy(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _views_as_reshapes(graph: fx.Graph) -> None:
    """Replace every view by a reshape: flattening channels-last features with a view fails."""
    for view in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
        for node in graph.find_nodes(op="call_function", target=view):
            node.target = torch.ops.aten.reshape.default


def _log_of_softmax(graph: fx.Graph) -> None:
    """Replace the logarithm of a softmax (``nn.log_probs``) by one operator with stable gradients."""
    for log in graph.find_nodes(op="call_function", target=torch.ops.aten.log.default):
        clamp = log.args[0]
        softmax = clamp.args[0] if operator_name(clamp) == "clamp" else clamp
        if operator_name(softmax) not in ("softmax", "_softmax"):
            continue
        with graph.inserting_before(log):
            fused = graph.call_function(torch.ops.aten.log_softmax.int, (softmax.args[0], softmax.args[1]))
        fused.meta = dict(log.meta)
        log.replace_all_uses_with(fused)
        graph.erase_node(log)


def _is_copy(node: fx.Node) -> bool:
    name = operator_name(node)
    if name == "slice":
        given = node.args[2:]
        return (*given, *(0, _SLICE_END, 1)[len(given) :]) in ((0, _SLICE_END, 1), (None, None, 1))
    if name in ("pad", "constant_pad_nd"):
        return not any(node.args[1])  # type: ignore[arg-type]
    return name in _COPIES


def _plain_batch_norms(graph: fx.Graph) -> None:
    """Replace eval-mode batch norms with outputs (values, mean, std) by the operator with a single output."""
    for node in list(graph.nodes):
        if operator_name(node) != "_native_batch_norm_legit_no_training":
            continue
        x, weight, bias, mean, variance, momentum, eps = node.args
        with graph.inserting_before(node):
            plain = graph.call_function(
                torch.ops.aten.batch_norm.default, (x, weight, bias, mean, variance, False, momentum, eps, False)
            )
        for item in list(node.users):
            plain.meta = dict(item.meta)
            item.replace_all_uses_with(plain)
            graph.erase_node(item)
        graph.erase_node(node)


def _fold(graph_module: fx.GraphModule) -> None:
    """Fold each batch norm into the preceding convolution, unless other nodes read the convolution too."""
    for norm in list(graph_module.graph.nodes):
        if operator_name(norm) != "batch_norm":
            continue
        conv = norm.args[0]
        if operator_name(conv) not in _CONVOLUTIONS or len(conv.users) > 1:
            continue
        weight = constant_value(graph_module, conv.args[1])
        gamma, beta, mean, variance = (constant_value(graph_module, argument) for argument in norm.args[1:5])
        if weight is None or mean is None or variance is None:
            continue
        bias = constant_value(graph_module, conv.args[2]) if len(conv.args) > 2 else None
        folded = fuse_conv_bn_weights(weight, bias, mean, variance, norm.args[7], gamma, beta)
        names = (f"{conv.name}_weight", f"{conv.name}_bias")
        nodes = [add_constant(graph_module, conv, n, v.detach()) for n, v in zip(names, folded, strict=True)]
        conv.args = (conv.args[0], *nodes, *conv.args[3:])
        norm.replace_all_uses_with(conv)
        graph_module.graph.erase_node(norm)
