"""A net as a flat graph of ATen operators, with batch norm folded into the convolutions in front of it.

``torch.export`` sees through every way of writing a net (functional or module ReLU, slices, Hugging Face classes), and
it is also what the ONNX exporter starts from: a net that it cannot trace has no ONNX file either.
"""

from __future__ import annotations

import contextlib
import copy
import io
import operator
import warnings
from functools import lru_cache

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from assay.core.errors import UnusableInput
from assay.core.model import digest_of_module
from assay.formats.onnx.module import OnnxGraph

_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_COPIES = frozenset({"clone", "alias", "detach", "contiguous", "dropout", "lift_fresh_copy"})
_WHOLE = 2**63 - 1  # the end of a slice that takes everything


def folded_graph(net: nn.Module, example: Tensor) -> fx.GraphModule:
    """A copy of ``net`` in eval mode as an ATen graph: (N, C, H, W) -> the same output up to float rounding.

    No operator works in place, what does nothing is left out, and each batch norm behind a convolution that nothing
    else reads is folded into it. ``example``: at least two inputs. Parameters do not require gradients.

    Raises UnusableInput where ``net`` cannot be traced, or where the graph does not reproduce its outputs.
    """
    return copy.deepcopy(_folded_graph(net, digest_of_module(net), _Example(example[:8].clone())))


class _Example:
    """Inputs to trace with: those of one shape count as the same."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Example) and self.x.shape[1:] == other.x.shape[1:]

    def __hash__(self) -> int:
        return hash(self.x.shape[1:])


@lru_cache(maxsize=2)
def _folded_graph(net: nn.Module, weights: str, of: _Example) -> fx.GraphModule:
    """Kept for a while: the forms of a model and the searches begin with the same graph, and tracing takes seconds."""
    del weights  # part of the key: a net that was trained on is another net
    example = of.x
    if any(isinstance(module, OnnxGraph) and module.rounds for module in net.modules()):
        raise UnusableInput("the model is quantized already: it is audited as it is")  # nor do gradients bear tracing
    net = copy.deepcopy(net).eval().requires_grad_(False)
    graph_module = _trace(net, example[:2])
    _drop_copies(graph_module.graph)
    _views_as_reshapes(graph_module.graph)
    _plain_batch_norms(graph_module.graph)
    _fold(graph_module)
    folded = rebuild(graph_module)
    with torch.no_grad():
        expected, got = net(example[:8]), folded(example[:8])
    if not expected.isfinite().all():
        raise UnusableInput("values overflow on the clean samples: the model gives NaN or infinity there")
    if not torch.allclose(expected, got, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        difference = float((expected - got).abs().max())
        raise UnusableInput(
            f"the traced net does not reproduce the net's outputs (difference {difference:.3g}): "
            "expected a net whose forward pass depends on its input only, in eval mode"
        )
    _log_of_softmax(folded.graph)
    return rebuild(folded)


def rebuild(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A graph module with only the parameters and buffers that its graph still uses."""
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    return fx.GraphModule(graph_module, graph_module.graph)


def operator_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``, ``add`` for ``aten.add.Tensor``; "" for what is no operator call."""
    if node.op != "call_function":
        return ""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def constant_value(graph_module: fx.GraphModule, node: fx.node.Argument) -> Tensor | None:
    """The parameter or buffer that a ``get_attr`` node reads, None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    return operator.attrgetter(str(node.target))(graph_module)


def add_constant(graph_module: fx.GraphModule, before: fx.Node, name: str, value: Tensor) -> fx.Node:
    """Stores ``value`` as a frozen parameter, ``name`` (no dots) or one like it; returns the node that reads it."""
    while hasattr(graph_module, name):  # the net may have something of that name
        name += "_"
    graph_module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(name)


def _trace(net: nn.Module, example: Tensor) -> fx.GraphModule:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # torch prints graphs that fail
        # torch 2.13 calls its own deprecated pytree class while it copies a graph; nothing a caller could change.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        try:
            exported = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            # Without a table of decompositions this only makes in-place operators functional.
            module = exported.run_decompositions({}).module(check_guards=False)
        except Exception as error:  # torch.export raises errors of many kinds, among them plain RuntimeError
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UnusableInput(
                f"expected a net that torch.export can trace, it says: {reason}; "
                "forms that need the graph of the net (int8, ONNX) are not available for it"
            ) from error
        graph = copy.deepcopy(module.graph)
    graph.set_codegen(fx.graph.CodeGen())
    for node in graph.nodes:
        if node.op == "output":  # the exported graph returns a tuple of one tensor
            node.args = (node.args[0][0],)
    return fx.GraphModule(module, graph)


def _drop_copies(graph: fx.Graph) -> None:
    """Takes out the operators that hand their input on unchanged."""
    for node in list(graph.nodes):
        if _is_copy(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _views_as_reshapes(graph: fx.Graph) -> None:
    """Writes every view as a reshape: a view of channels-last features fails where they are flattened."""
    for view in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
        for node in graph.find_nodes(op="call_function", target=view):
            node.target = torch.ops.aten.reshape.default


def _log_of_softmax(graph: fx.Graph) -> None:
    """Writes the logarithm of a softmax (of ``models.probabilities``) as one operator, which keeps its gradients."""
    for log in graph.find_nodes(op="call_function", target=torch.ops.aten.log.default):
        clamp = log.args[0]
        softmax = clamp.args[0] if operator_name(clamp) == "clamp" else clamp
        if operator_name(softmax) not in ("softmax", "_softmax"):
            continue
        with graph.inserting_before(log):
            whole = graph.call_function(torch.ops.aten.log_softmax.int, (softmax.args[0], softmax.args[1]))
        whole.meta = dict(log.meta)
        log.replace_all_uses_with(whole)
        graph.erase_node(log)


def _is_copy(node: fx.Node) -> bool:
    name = operator_name(node)
    if name == "slice":
        given = node.args[2:]
        return (*given, *(0, _WHOLE, 1)[len(given) :]) in ((0, _WHOLE, 1), (None, None, 1))
    if name in ("pad", "constant_pad_nd"):
        return not any(node.args[1])  # type: ignore[arg-type]
    return name in _COPIES


def _plain_batch_norms(graph: fx.Graph) -> None:
    """Writes (values, mean, std) batch norms in eval mode as the operator that returns the values only."""
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
    """Folds each batch norm into the convolution in front of it, where nothing else reads the convolution."""
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
