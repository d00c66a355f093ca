"""False alarms of the graph detector on clean computation graphs.

Small transformers models with random weights, built from their configurations and exported to ONNX in the usual way.
The detector reads the graph, which does not depend on the weights. Branches are observed on random inputs. Text models
derive their mask from the padding.

    python benchmarks/run.py clean_graphs [MODEL ...]       # -> benchmarks/results/clean_graphs.json
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lib import commands
from lib.results import save_result
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.model import Artifact, ImageSpec, Modality, TextSpec, digest_of_module
from assay.detectors import Graph

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
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
    "pvt": (
        "Pvt",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 32, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
        },
    ),
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
        name: (classifier(kind, s, False), False, s.get("image_size", 64)) for name, (kind, s) in IMAGE_MODELS.items()
    }
    builders |= {name: (classifier(kind, s, True), True, 0) for name, (kind, s) in TEXT_MODELS.items()}
    for name, (kind, config, settings) in ENCODERS.items():
        texts = "vocab_size" in settings
        builders[name] = (other(kind, config, settings), texts, 32)
    return builders


def measure(make: Callable[[], nn.Module], texts: bool, size: int) -> dict[str, Any]:
    """Run the detector on one model."""
    torch.manual_seed(0)
    model = TensorOutput(make().eval(), texts=texts).eval()
    if texts:
        x = torch.randint(3, WORDS, (32, LENGTH))
        for row in range(32):
            x[row, LENGTH - row % 6 :] = PAD
            x[row, LENGTH - row % 6 - 1] = 2
        inputs: Any = TextSpec((LENGTH,), "{}", 0, 2, PAD, WORDS)
    else:
        x, inputs = torch.rand(32, 3, size, size), ImageSpec((3, size, size))
    modality = Modality.TEXT if texts else Modality.IMAGE
    artifact = Artifact(model, modality, 10, "module", digest_of_module(model), inputs)
    start = time.perf_counter()
    finding = Graph()(artifact, Split(x, None), seed=0)
    return {
        "status": finding.outcome.status,
        "reason": finding.reason,
        "score": finding.score,
        "proof": finding.proof,
        "nodes": finding.evidence.numbers.get("nodes"),
        "rules": [key for key in finding.evidence.numbers if key[0] in "RD" and key[1:].isdigit()],
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(names: list[str]) -> None:
    """Run the detector on the named models, or on all and write the result file."""
    warnings.filterwarnings("ignore")
    rows: dict[str, Any] = {}
    for name, (make, texts, size) in models().items():
        if names and name not in names:
            continue
        try:
            rows[name] = measure(make, texts, size)
        except Exception as error:
            rows[name] = {"status": "not made", "reason": f"{type(error).__name__}: {str(error)[:150]}", "score": None}
        print(name, rows[name], flush=True)
    read = [row for row in rows.values() if row["status"] == "ok"]
    alarms = sum(bool(row["score"]) for row in read)
    print(f"{alarms} alarms in {len(read)} readable graphs, of {len(rows)}")
    if not names:
        save_result("clean_graphs", {"alarms": [alarms, len(read)], "models": rows})


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("names", nargs="*", metavar="MODEL")
    main(command_line.parse_args().names)
