"""ONNX Runtime sessions on the CPU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from assay.core.errors import UnusableInput, first_line

if TYPE_CHECKING:
    import onnx


def start_session(path: Path, *, optimized: bool = True) -> Any:
    """Return a session of ONNX Runtime for a file.

    Args:
        path: The ONNX file.
        optimized: False: ONNX Runtime leaves the graph as it stands in the file.

    Raises:
        UnusableInput: ONNX Runtime cannot load the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # its warnings would go straight to standard error
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base class
        raise UnusableInput(f"{path}: ONNX Runtime cannot load it: {short_message(error)}") from None


def watching_session(model: onnx.ModelProto, names: Sequence[str]) -> Any:
    """Return a session with inner values of a graph as further outputs.

    Args:
        model: The graph, with all its data.
        names: Names of the values.
    """
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    # An optimization would fuse values away.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])


def short_message(error: Exception) -> str:
    """Return ONNX Runtime's message without the positions in its own source and without the path."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (Load model from .*? failed: ?)?", "", first_line(error))
    text = re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z])", "", text)
    # of a failed run: the operator, and the check after the position in the source
    return re.sub(r"(Status Message: )/\S+:\d+ .*? was false\. ", r"\1", text)
