"""False alarms of the graph detector on clean computation graphs.

Small transformers models with random weights, built from their configurations and exported to ONNX in the usual way.
The detector reads the graph, which does not depend on the weights. Branches are observed on random inputs. Text models
derive their mask from the padding. Each model is examined as a torch module and as an ONNX file. Further models are
assay's own architectures, their int8 files, and ONNX files of other origin.

    python benchmarks/run.py clean_graphs [MODEL ...] [--files FOLDER]    # -> benchmarks/results/clean_graphs.json

A repeated run completes the missing rows. FOLDER holds ONNX files, for instance of Python packages.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from lib import architectures, commands
from lib.results import ResumableRows
from lib.third_party_models import cifar_resnet
from torch import Tensor, nn

from assay import formats
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, ImageSpec, Modality, TextSpec, digest_of_module
from assay.detectors import Graph
from assay.detectors.graph.read import ReadableGraph, read_graph
from assay.detectors.graph.rules import find_suspicious_subgraphs
from assay.formats.torch_module import from_module
from assay.graphs.batch import find_batch_effects
from assay.graphs.export import to_onnx_int8
from assay.graphs.ir import graph_from_onnx, subgraph_of

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
SIZES = {"hiera": 64}  # of images, where the configuration holds a list
PYRAMID = {
    "image_size": 64,
    "hidden_sizes": [16, 32, 32, 64],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
}
WORDS, LENGTH, PAD = 200, 16, 1  # size of the vocabulary, tokens of a text, padding token

IMAGE_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("ResNet", {"embedding_size": 16, "hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1]}),
    "vit": ("ViT", VISION),
    "deit": ("DeiT", VISION),
    "beit": ("Beit", VISION),
    "data2vec-vision": ("Data2VecVision", VISION),
    "dinov2": ("Dinov2", VISION),
    "swin": (
        "Swin",
        {"image_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4]},
    ),
    "swinv2": (
        "Swinv2",
        {"image_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4]},
    ),
    "convnext": ("ConvNext", {"hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1], "image_size": 32}),
    "convnextv2": ("ConvNextV2", {"hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1], "image_size": 32}),
    "mobilenet_v1": ("MobileNetV1", {"image_size": 32, "depth_multiplier": 0.25}),
    "mobilenet_v2": ("MobileNetV2", {"image_size": 32, "depth_multiplier": 0.35}),
    "mobilevit": (
        "MobileViT",
        {"image_size": 64, "hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64]},
    ),
    "mobilevitv2": ("MobileViTV2", {"image_size": 64, "width_multiplier": 0.5}),
    "efficientnet": (
        "EfficientNet",
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    ),
    "regnet": (
        "RegNet",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1], "groups_width": 8},
    ),
    "levit": (
        "Levit",
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "poolformer": ("PoolFormer", {"hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1]}),
    "pvt": ("Pvt", PYRAMID),
    "cvt": ("Cvt", {}),
    "focalnet": (
        "FocalNet",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [1, 1],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
    ),
    "segformer": (
        "Segformer",
        {"hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
    ),
    "dinov2-registers": ("Dinov2WithRegisters", VISION),
    "vit-msn": ("ViTMSN", VISION),
    "ijepa": ("IJepa", VISION),
    "pvtv2": ("PvtV2", PYRAMID),
    "swiftformer": ("SwiftFormer", {"image_size": 64, "embed_dims": [16, 32, 32, 64], "depths": [1, 1, 1, 1]}),
    "hiera": (
        "Hiera",
        {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    ),
    "textnet": ("TextNet", {}),
    "hgnetv2": ("HGNetV2", {}),
    "bit": ("Bit", {"embedding_size": 16, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1], "num_groups": 8}),
}

TEXT_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SMALL),
    "roberta": ("Roberta", SMALL),
    "xlm-roberta": ("XLMRoberta", SMALL),
    "camembert": ("Camembert", SMALL),
    "data2vec-text": ("Data2VecText", SMALL),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "electra": ("Electra", {**SMALL, "embedding_size": 32}),
    "albert": ("Albert", {**SMALL, "embedding_size": 32}),
    "mpnet": ("MPNet", SMALL),
    "deberta-v2": ("DebertaV2", SMALL),
    "modernbert": ("ModernBert", SMALL),
    "rembert": ("RemBert", {**SMALL, "input_embedding_size": 32, "output_embedding_size": 32}),
    "squeezebert": ("SqueezeBert", {**SMALL, "embedding_size": 32}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "opt": (
        "OPT",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32},
    ),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
}

ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "clip-vision": ("CLIPVisionModel", "CLIPVisionConfig", {**VISION, "projection_dim": 32}),
    "siglip-vision": ("SiglipVisionModel", "SiglipVisionConfig", VISION),
    "clip-text": (
        "CLIPTextModel",
        "CLIPTextConfig",
        {**SMALL, "vocab_size": WORDS, "eos_token_id": 2, "pad_token_id": PAD},
    ),
    "t5-encoder": (
        "T5EncoderModel",
        "T5Config",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": WORDS,
            "pad_token_id": PAD,
        },
    ),
}


class TensorOutput(nn.Module):
    """A transformers model with one output tensor (N, K): its logits, its pooled output, or a mean."""

    def __init__(self, model: nn.Module, *, texts: bool) -> None:
        super().__init__()
        self.model, self.texts = model, texts

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(input_ids=x, attention_mask=(x != PAD).long()) if self.texts else self.model(x)
        for name in ("logits", "pooler_output"):
            if (output := getattr(out, name, None)) is not None:
                return output.flatten(1)
        states = out.last_hidden_state
        if not self.texts:
            return states.mean(1)
        mask = (x != PAD)[..., None].to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)


def models() -> dict[str, tuple[Callable[[], nn.Module], bool, int]]:
    """Return builder, text flag and image size in pixels of each model."""
    import transformers as hf

    def classifier(kind: str, settings: dict[str, Any], texts: bool) -> Callable[[], nn.Module]:
        extra = {"vocab_size": WORDS, "pad_token_id": PAD} if texts else {"num_channels": 3}
        task = "SequenceClassification" if texts else "ImageClassification"

        def make() -> nn.Module:
            config = getattr(hf, f"{kind}Config")(**{"num_labels": 10, **settings, **extra})
            return getattr(hf, f"{kind}For{task}")(config)

        return make

    def other(kind: str, config: str, settings: dict[str, Any]) -> Callable[[], nn.Module]:
        return lambda: getattr(hf, kind)(getattr(hf, config)(**settings))

    builders = {
        name: (classifier(kind, s, False), False, SIZES.get(name) or s.get("image_size", 64))
        for name, (kind, s) in IMAGE_MODELS.items()
    }
    builders |= {name: (classifier(kind, s, True), True, 0) for name, (kind, s) in TEXT_MODELS.items()}
    for name, (kind, config, settings) in ENCODERS.items():
        texts = "vocab_size" in settings
        builders[name] = (other(kind, config, settings), texts, 32)
    return builders


def measure(make: Callable[[], nn.Module], texts: bool, size: int) -> dict[str, Any]:
    """Run the detector on one model, and on its ONNX file."""
    torch.manual_seed(0)
    model = TensorOutput(make().eval(), texts=texts).eval()
    if texts:
        x = torch.randint(3, WORDS, (32, LENGTH))
        for row in range(32):
            x[row, LENGTH - row % 6 :] = PAD
            x[row, LENGTH - row % 6 - 1] = 2
        inputs: Any = TextSpec((LENGTH,), "{}", 0, 2, PAD, WORDS)
    else:
        x, inputs = grid_images(size), ImageSpec((3, size, size))
    modality = Modality.TEXT if texts else Modality.IMAGE
    artifact = Artifact(model, modality, 10, "module", digest_of_module(model), inputs)
    row = examine(artifact, x)
    read = read_graph(model, x) if row["status"] == "ok" and not texts else None
    if isinstance(read, ReadableGraph):
        row["file"] = examine_file(read.model.SerializeToString(), x)
    return row


def grid_images(size: int) -> Tensor:
    """Return random images on 8-bit levels."""
    return (255 * torch.rand(32, 3, size, size)).round() / 255


def examine(artifact: Artifact, x: Tensor) -> dict[str, Any]:
    """Run the detector."""
    start = time.perf_counter()
    finding = Graph()(artifact, Split(x, None), seed=0)
    numbers = finding.evidence.numbers
    return {
        "status": finding.outcome.status,
        "reason": finding.reason,
        "score": finding.score,
        "proof": finding.proof,
        "doubt": finding.doubt,
        "not tested": str(numbers.get("conditions not tested", "")),
        "nodes": numbers.get("nodes"),
        "rules": [key for key in numbers if key[0] in "RD" and key[1:].isdigit()],
        "seconds": round(time.perf_counter() - start, 1),
    }


def examine_file(content: bytes, x: Tensor) -> dict[str, Any]:
    """Run the detector on an ONNX file of an image model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        return examine(formats.load(path), x)


def own_models() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the measurements of assay's own architectures and of models in the benchmarks, int8 files included."""

    def row(module: nn.Module, *, int8: bool) -> dict[str, Any]:
        artifact, x = from_module(module.eval(), shape=(3, 32, 32)), grid_images(32)
        if not int8:
            return examine(artifact, x)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            to_onnx_int8(artifact, x, path, per_channel=True)
            return examine(formats.load(path), x)

    modules: dict[str, Callable[[], nn.Module]] = {
        "resnet20-cifar": lambda: cifar_resnet("resnet20").module,
        "plain": lambda: architectures.plain((3, 32, 32), 10),
        "convnext-like": lambda: architectures.convnext((3, 32, 32), 10),
    }
    return {
        f"{name}{', int8' if int8 else ''}": partial(lambda make, int8: row(make(), int8=int8), make, int8)
        for name, make in modules.items()
        for int8 in (False, True)
    }


def file_row(path: Path) -> dict[str, Any]:
    """Test the rules on a foreign ONNX file; rules about images need a file that assay can load."""
    model = onnx.load(path)
    graph = graph_from_onnx(model, path.parent)
    graph = subgraph_of(graph, graph.results[-1])
    whole = any(value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT for value in model.graph.input)
    effects = find_batch_effects(model, frozenset(name for node in graph.nodes for name in node.outputs))
    subgraphs = find_suspicious_subgraphs(graph, markers=frozenset({0, 1, 2}) if whole else None)
    rules = {rule for subgraph in subgraphs for rule in subgraph.rules}
    rules |= {"R11"} if effects.size_as_number else set()
    rules |= {"R12"} if effects.mixing else set()
    row = {"status": "ok", "reason": "", "score": float(len(rules)), "nodes": len(graph.nodes), "rules": sorted(rules)}
    try:
        artifact = formats.load(path)
    except UnusableInput as error:
        return row | {"not loaded": str(error)}
    if artifact.modality is not Modality.IMAGE:
        return row
    return row | {"file": examine(artifact, grid_images_like(artifact))}


def grid_images_like(artifact: Artifact) -> Tensor:
    """Return random images on 8-bit levels for a model."""
    shape = artifact.image_spec.shape
    return (255 * torch.rand(16, *shape)).round() / 255


def alarms_of(row: dict[str, Any]) -> bool:
    """Return True if a rule is broken in any form of a model."""
    return bool(row["score"]) or bool(row.get("file", {}).get("score"))


def summarize(rows: dict[str, Any]) -> dict[str, Any]:
    """Return the number of alarms among the readable graphs."""
    read = [row for row in rows.values() if row["status"] == "ok"]
    return {"alarms": [sum(map(alarms_of, read)), len(read)]}


def main(names: list[str], files: Path | None) -> None:
    """Run the detector on the named models, or on all; write the result file."""
    warnings.filterwarnings("ignore")
    jobs: dict[str, Callable[[], dict[str, Any]]] = {name: partial(measure, *model) for name, model in models().items()}
    jobs |= own_models()
    for path in sorted(files.rglob("*.onnx")) if files else ():
        jobs[f"file {path.name if path.stem != 'model' else path.parent.name}"] = partial(file_row, path)
    rows = ResumableRows("clean_graphs", summarize)
    for name in names or list(rows.missing(jobs)):
        try:
            row = jobs[name]()
        except Exception as error:
            row = {"status": "not made", "reason": f"{type(error).__name__}: {str(error)[:150]}", "score": None}
        rows.add(name, row)
    print(summarize(rows.rows))


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("names", nargs="*", metavar="MODEL")
    command_line.add_argument("--files", type=Path, metavar="FOLDER", help="ONNX files of clean models")
    arguments = command_line.parse_args()
    main(arguments.names, arguments.files)
