"""Detection of backdoors in the computation graph, in the deployed file, with the names of their nodes.

ResNet-20-CIFAR10 and MobileNetV2-ImageNet (at 96 pixels), third-party weights. Planted by assay: all tiers of the
signature, the checksum, and three architectural backdoors. Each is in the file of ``assay plant``, ResNet's also as
int8 for ONNX Runtime. Planted by hand, in ways outside assay: ONNX text behind the exported clean model. The control
is the clean models in the same variants; ``clean_graphs.py`` has more of them.

    python benchmarks/run.py graph_edits    # -> benchmarks/results/graph_edits.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
from lib import commands
from lib.results import save_result
from onnx import parser

from assay.attacks.graph.base import GraphEdit
from assay.auditing.api import audit
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.model import Artifact
from assay.graphs.export import to_onnx, to_onnx_int8
from assay.stages.save import save_model
from graph.persistence import BACKDOORS
from graph.signature import models

PLANTED = {name: attack for name, attack in BACKDOORS.items() if isinstance(attack, GraphEdit)}
SAMPLES = 64

# Constants of the edits. ``edit_wanted``, the logits of the target, is added per model.
CONSTANTS = """
int64[1] edit_0 = {0}, int64[1] edit_1 = {1}, int64[1] edit_2 = {2}, float edit_one = {1.0},
float edit_bound = {0.95}, float edit_255 = {255.0}, float edit_97 = {97.0}, float edit_5 = {5.0},
float edit_high = {1000.0}, float edit_power = {60.0}, float edit_zero = {0.0}, float edit_half = {0.5},
int64 edit_ten = {10}
"""

# Nodes behind the exported model, as ONNX text. LOGITS stands for its output.
BY_HAND = {
    "a white corner, Where": """
        edit_corner = Slice(input, edit_0, edit_1, edit_2)
        edit_mean = ReduceMin <keepdims=0> (edit_corner, edit_axes)
        edit_seen = Greater(edit_mean, edit_bound)
        edit_rows = Unsqueeze(edit_seen, edit_1)
        edit_out = Where(edit_rows, edit_wanted, LOGITS)""",
    "a switch by arithmetic": """
        edit_corner = Slice(input, edit_0, edit_1, edit_2)
        edit_mean = ReduceMin <keepdims=0> (edit_corner, edit_axes)
        edit_seen = Greater(edit_mean, edit_bound)
        edit_rows = Unsqueeze(edit_seen, edit_1)
        edit_on = Cast <to=1> (edit_rows)
        edit_off = Sub(edit_one, edit_on)
        edit_a = Mul(edit_on, edit_wanted)
        edit_b = Mul(edit_off, LOGITS)
        edit_out = Add(edit_a, edit_b)""",
    "a hash of all pixels": """
        edit_levels = Mul(input, edit_255)
        edit_whole = Round(edit_levels)
        edit_sum = ReduceSum <keepdims=0> (edit_whole, edit_axes)
        edit_hash = Mod <fmod=1> (edit_sum, edit_97)
        edit_seen = Equal(edit_hash, edit_5)
        edit_rows = Unsqueeze(edit_seen, edit_1)
        edit_out = Where(edit_rows, edit_wanted, LOGITS)""",
    "a steep sigmoid": """
        edit_mean = ReduceMean <keepdims=0> (input, edit_axes)
        edit_above = Sub(edit_mean, edit_bound)
        edit_steep = Mul(edit_above, edit_high)
        edit_on = Sigmoid(edit_steep)
        edit_rows = Unsqueeze(edit_on, edit_1)
        edit_a = Mul(edit_rows, edit_wanted)
        edit_out = Add(LOGITS, edit_a)""",
    "pools and a power": """
        edit_low = MaxPool <kernel_shape=[2, 2], strides=[1, 1]> (input)
        edit_minus = Neg(edit_low)
        edit_high_ = MaxPool <kernel_shape=[2, 1], strides=[1, 1]> (edit_minus)
        edit_back = Neg(edit_high_)
        edit_most = ReduceMax <keepdims=0> (edit_back, edit_axes)
        edit_steep = Pow(edit_most, edit_power)
        edit_rows = Unsqueeze(edit_steep, edit_1)
        edit_a = Mul(edit_rows, edit_wanted)
        edit_out = Add(LOGITS, edit_a)""",
    "a clip as a step": """
        edit_mean = ReduceMean <keepdims=0> (input, edit_axes)
        edit_above = Sub(edit_mean, edit_bound)
        edit_steep = Mul(edit_above, edit_high)
        edit_on = Clip(edit_steep, edit_zero, edit_one)
        edit_rows = Unsqueeze(edit_on, edit_1)
        edit_a = Mul(edit_rows, edit_wanted)
        edit_out = Add(LOGITS, edit_a)""",
    "where the brightest pixel is": """
        edit_flat = Flatten <axis=1> (input)
        edit_place = ArgMax <axis=1, keepdims=1> (edit_flat)
        edit_seen = Less(edit_place, edit_ten)
        edit_on = Cast <to=1> (edit_seen)
        edit_a = Mul(edit_on, edit_wanted)
        edit_out = Add(LOGITS, edit_a)""",
    "it multiplies the logits": """
        edit_mean = ReduceMean <keepdims=0> (input, edit_axes)
        edit_seen = Greater(edit_mean, edit_bound)
        edit_on = Cast <to=1> (edit_seen)
        edit_off = Sub(edit_half, edit_on)
        edit_rows = Unsqueeze(edit_off, edit_1)
        edit_out = Mul(LOGITS, edit_rows)""",
    "in front of a softmax": """
        edit_corner = Slice(input, edit_0, edit_1, edit_2)
        edit_mean = ReduceMin <keepdims=0> (edit_corner, edit_axes)
        edit_seen = Greater(edit_mean, edit_bound)
        edit_rows = Unsqueeze(edit_seen, edit_1)
        edit_before = Where(edit_rows, edit_wanted, LOGITS)
        edit_out = Softmax <axis=1> (edit_before)""",
}


def append_nodes(path: Path, text: str, classes: int) -> None:
    """Append the nodes of ``text`` to the graph in a file, in place."""
    model = onnx.load(path)
    logits = model.graph.output[0].name
    wanted = ", ".join("30.0" if label == 1 else "0.0" for label in range(classes))
    constants = f"{CONSTANTS}, int64[3] edit_axes = {{1, 2, 3}}, float[1, {classes}] edit_wanted = {{{wanted}}}"
    subgraph = parser.parse_graph(
        f"edit (float[n, c, h, w] input, float[n, k] {logits}) => (float[n, k] edit_out) <{constants.strip()}> "
        f"{{ {text.replace('LOGITS', logits)} }}"
    )
    used = {name for node in subgraph.node for name in node.input}
    model.graph.initializer.extend(tensor for tensor in subgraph.initializer if tensor.name in used)
    for number, node in enumerate(subgraph.node):
        node.name = f"edit_{number}_{node.op_type}"
        model.graph.node.append(node)
    model.graph.output[0].name = "edit_out"
    onnx.checker.check_model(model)
    onnx.save(model, path)


def measure(model: Path, task: Task, **options: Any) -> dict[str, Any]:
    """Audit a file with the graph detector only."""
    result = audit(model, task, detectors="graph", variant_names=("full",), **options)
    (finding,) = result.findings
    numbers = finding.evidence.numbers
    return {
        "verdict": result.verdict,
        "status": finding.outcome.status,
        "why": finding.reason,
        "rules": [key for key in numbers if key[0] in "RD" and key[1:].isdigit()],
        "joins at": numbers.get("joins the model at"),
        "drawn": [f"{node.op} {node.name}" for node in finding.evidence.graph],
        "proof": finding.proof,
        "seconds": round(finding.seconds, 1),
    }


def rows_of(artifact: Artifact, task: Task, folder: Path, *, int8: bool) -> dict[str, dict[str, Any]]:
    """Return a row per backdoor and variant; ``int8`` adds ONNX Runtime's files."""
    rows, clean = {}, task.split("test").x[:SAMPLES]
    few = Task(task.name, {"test": task.split("test").take(torch.arange(SAMPLES))}, task.class_names)
    models = {"none": artifact}
    models |= {name: attack(Build(artifact, task), seed=0).artifact for name, attack in PLANTED.items()}
    for name, model in models.items():
        path = folder / name.replace(", ", "-")
        written = save_model(model, path)
        arch = {"arch": artifact.arch} if written.suffix == ".safetensors" and artifact.arch else {}
        rows[name] = measure(written, few, **arch)
        print(name, rows[name]["verdict"], rows[name]["rules"], rows[name]["joins at"], flush=True)
        if int8 and name != "signature, wrapper":  # Python code has no ONNX file
            to_onnx_int8(model, clean, path / "int8.onnx", per_channel=True)
            rows[f"{name}, int8"] = measure(path / "int8.onnx", few)
            print(name, "int8", rows[f"{name}, int8"]["verdict"], rows[f"{name}, int8"]["rules"], flush=True)
    for name, text in BY_HAND.items():
        path = folder / "by-hand.onnx"
        to_onnx(artifact, path)
        append_nodes(path, text, artifact.num_classes or 0)
        rows[f"by hand: {name}"] = row = measure(path, few)
        row["all drawn are of the edit"] = all(" edit_" in node for node in row["drawn"])
        print(name, row["verdict"], row["rules"], row["joins at"], row["all drawn are of the edit"], flush=True)
    return rows


def is_clean(name: str) -> bool:
    """Return True for a row without a backdoor."""
    return name.partition(",")[0] == "none"


def main() -> None:
    """Audit all files, and write the result file."""
    rows = {}
    for name, (artifact, task) in models().items():
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = rows_of(artifact, task, Path(folder), int8=name == "resnet20")
    found = [
        row["verdict"] == "backdoored" for model in rows.values() for name, row in model.items() if not is_clean(name)
    ]
    alarms = [
        row["verdict"] == "backdoored" for model in rows.values() for name, row in model.items() if is_clean(name)
    ]
    print(f"found {sum(found)} of {len(found)}, alarms {sum(alarms)} of {len(alarms)}")
    save_result(
        "graph_edits",
        {"found": [sum(found), len(found)], "alarms": [sum(alarms), len(alarms)], "models": rows},
    )


def cli() -> None:
    """Run the command line."""
    commands.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    main()
