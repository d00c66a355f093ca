"""Names in an ONNX file: readable, and each with one meaning. Readers would choose differently among duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from assay.core.errors import UnusableInput

if TYPE_CHECKING:
    import onnx

# Domains of operators that ONNX Runtime can have. A package of the user's own would have to be loaded as code.
KNOWN_DOMAINS = {
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "ai.onnx.preview", "com.microsoft",
    "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc",
}  # fmt: skip
STANDARD_DOMAINS = ("", "ai.onnx")
MAX_LISTED = 3


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in the attributes of a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def check_names(model: onnx.ModelProto, path: Path) -> None:
    """Raise UnusableInput for unreadable or repeated names, and for operators of unknown domains.

    Args:
        model: The model. Its nesting must be bounded.
        path: Its file.
    """
    metadata = dict.fromkeys((entry.key, entry.value) for entry in model.metadata_props)
    _refuse_repeated([key for key, value in metadata], "metadata", path)
    domains = [entry.domain if entry.domain != "ai.onnx" else "" for entry in model.opset_import]
    _refuse_repeated(domains, "operator sets of the domain", path)
    _refuse_repeated([f"{f.domain}.{f.name}.{getattr(f, 'overload', '')}" for f in model.functions], "functions", path)
    functions = {(function.domain, function.name) for function in model.functions}
    unknown: set[str] = set()
    for node in _nodes(model, path):
        _refuse_repeated([attribute.name for attribute in node.attribute], f"attributes of {node.op_type}", path)
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in functions:
            unknown.add(f"{node.domain}.{node.op_type}")
    if unknown:
        listed = ", ".join(name[:100] for name in sorted(unknown)[:MAX_LISTED])
        more = f" and {len(unknown) - MAX_LISTED} more" if len(unknown) > MAX_LISTED else ""
        raise UnusableInput(
            f"{path}: expected operators of ONNX or ONNX Runtime, got custom operators: {listed}{more}. "
            "Fix: export it without them; assay loads no libraries of operators."
        )


def _nodes(model: onnx.ModelProto, path: Path) -> Iterator[onnx.NodeProto]:
    """Yield all nodes, and check the names of values on the way."""
    for function in model.functions:
        _check_values([], list(function.input), function.node, path)
        yield from function.node
    graphs = [model.graph, *(graph for f in model.functions for node in f.node for graph in subgraphs(node))]
    while graphs:
        graph = graphs.pop()
        sparse = [tensor.values.name for tensor in graph.sparse_initializer]
        constants = [*(tensor.name for tensor in graph.initializer), *sparse]
        inputs = [value.name for value in graph.input]
        _check_values(constants, inputs, graph.node, path)
        _refuse_repeated([value.name for value in graph.output], "outputs", path)
        yield from graph.node
        graphs += [inner for node in graph.node for inner in subgraphs(node)]


def _check_values(constants: list[str], inputs: list[str], nodes: Iterable[onnx.NodeProto], path: Path) -> None:
    """Raise UnusableInput for a repeated or unreadable name among the values of one graph."""
    _refuse_repeated(constants, "constants", path)
    _refuse_repeated(inputs, "inputs", path)
    made = [name for node in nodes for name in node.output if name]
    # A constant may repeat an input, as its default value.
    _refuse_repeated([*made, *dict.fromkeys([*constants, *inputs])], "values", path)
    read = [text for node in nodes for text in (*node.input, node.name, node.op_type, node.domain)]
    _refuse_unreadable(read, path)


def _refuse_repeated(names: list[str], what: str, path: Path) -> None:
    _refuse_unreadable(names, path)
    if len(names) != len(set(names)):
        name, count = Counter(names).most_common(1)[0]
        raise UnusableInput(
            f"{path}: expected different {what}, got {name[:100]!r} {count} times. Fix: export it again."
        )


def _refuse_unreadable(names: Iterable[str], path: Path) -> None:
    # protobuf returns bytes for a text that is not UTF-8
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise UnusableInput(f"{path}: expected names in UTF-8, got {wrong[:40]!r}. Fix: export it again.")
