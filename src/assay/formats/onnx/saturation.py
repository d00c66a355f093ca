"""Note on 8-bit files whose outputs depend on the CPU.

On x86 CPUs without VNNI, ONNX Runtime multiplies unsigned activations by signed weights in pairs (VPMADDUBSW). The sum
of a pair saturates at 16 bits: 255 * (64 + 65) > 32767. Signed activations are converted to unsigned ones first.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

    from assay.formats.onnx.weights import StoredWeights

LARGEST_SAFE_WEIGHT = 64  # two such weights times 255 fit 16 bits
WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3, "MatMulInteger": 1, "ConvInteger": 1, "QGemm": 3}
FUSED = ("Conv", "MatMul", "Gemm")  # in files with QuantizeLinear and DequantizeLinear around them
CPU_INFO = Path("/proc/cpuinfo")


def saturation_notes(model: onnx.ModelProto, weights: StoredWeights) -> tuple[str, ...]:
    """Return a note if the file's outputs can differ on CPUs without VNNI, computed from graph and weights.

    Args:
        model: The model.
        weights: Its weights.
    """
    names = list(_signed_weights(model))
    wide = [
        name
        for name in names
        if name in weights.integers
        and np.abs(weights.integers[name].astype(np.int16)).max(initial=0) > LARGEST_SAFE_WEIGHT
    ]
    if not wide:
        return ()
    here = {True: "This CPU has VNNI.", False: "This CPU has none.", None: ""}[_has_vnni()]
    return (
        f"its outputs depend on the CPU: {len(wide)} of {len(names)} layers with 8-bit weights use more than 7 bits, "
        f"and their sums can saturate on x86 CPUs without VNNI. {here} "
        "Fix: quantize with reduce_range=True for such CPUs.".replace("  ", " "),
    )


def _signed_weights(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the names of the integer weights of all layers that multiply activations of 8 bits."""
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        place = WEIGHT_INPUT.get(node.op_type)
        if place is not None and len(node.input) > place:
            yield node.input[place]
        elif node.op_type in FUSED and len(node.input) > 1:
            sources = [made.get(name) for name in node.input[:2]]
            # ONNX Runtime computes in 8 bits only if both inputs come from integers.
            if all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
                yield sources[1].input[0]  # type: ignore[union-attr]


def _has_vnni() -> bool | None:
    """Return whether this CPU has VNNI; None if that is unknown, or the CPU is no x86."""
    try:
        text = CPU_INFO.read_text()
    except OSError:
        return None
    return "vnni" in text if "avx2" in text else None
