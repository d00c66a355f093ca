"""The readers of foreign files: a valid input of each, and the call that reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Reader:
    """A reader: ``make`` writes a valid input into a folder, ``read`` reads the folder as a user's call does."""

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    weight: int = 1  # cases of this reader, relative to the others


IMAGE_CONFIG: dict[str, Any] = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 8,
    "patch_size": 4,
    "id2label": {"0": "a", "1": "b", "2": "c", "3": "d"},
    "label2id": {"a": 0, "b": 1, "c": 2, "d": 3},
}
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3}
PROCESSOR |= {"image_std": [0.5] * 3, "do_normalize": True, "do_resize": True, "resample": 2}
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "cat", "dog", "runs", "sings")


def _make_safetensors(folder: Path) -> None:
    from assay.formats import save
    from assay.formats.untrained import untrained_model

    save(untrained_model("resnet8-cifar", 4), folder)


def _make_huggingface(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    ViTForImageClassification(ViTConfig(**IMAGE_CONFIG)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def _make_text_model(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(**small, vocab_size=len(WORDS), max_position_embeddings=12, pad_token_id=0)
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(_tokenizer())


def _tokenizer() -> str:
    """Return the content of a tokenizer.json."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(WORDS[:4]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    return str(tokenizer.to_str())


def onnx_model(batch: int | str = "N") -> Any:
    """Return a small ONNX model with convolution, normalization, pooling, reshaping and a linear layer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array((rng.normal(size=shape) * 0.1).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "b", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Reshape", ["g", "to"], ["f"]),
        helper.make_node("Gemm", ["f", "fw", "fb"], ["logits"], transB=1),
    ]
    constants = [weight("w", 8, 3, 3, 3), weight("b", 8), weight("s", 8), weight("fw", 4, 8), weight("fb", 4)]
    constants += [
        numpy_helper.from_array(np.ones(8, np.float32), "v"),
        numpy_helper.from_array(np.array([-1, 8]), "to"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def _make_onnx(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(onnx_model().SerializeToString())


def _make_optimum(folder: Path) -> None:
    _make_onnx(folder)
    (folder / "config.json").write_text(json.dumps(IMAGE_CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def _load(folder: Path) -> None:
    """Load a model and run it once."""
    from assay import formats

    files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.onnx"))
    named = (folder / "config.json").exists() or not files
    artifact = formats.load(folder if named else files[0])
    with torch.no_grad():
        artifact.module(artifact.inputs.blank(2))


def _make_npz(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 8, 8, 3), np.uint8)
    np.savez_compressed(folder / "d.npz", x=images, y=np.arange(32) % 4)


def _make_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.array([{"bytes": _png(number), "path": None} for number in range(16)])
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": image, "label": [n % 4 for n in range(16)]}), folder / f"{split}.parquet")


def _make_text_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"red cat runs {n}" for n in range(16)]
    pq.write_table(pa.table({"text": texts, "label": [n % 2 for n in range(16)]}), folder / "train.parquet")


def _make_images(folder: Path) -> None:
    for label in ("a", "b"):
        (folder / label).mkdir()
        for number, suffix in enumerate(("png", "jpg", "gif", "tiff", "webp", "bmp")):
            (folder / label / f"{number}.{suffix}").write_bytes(_png(number, suffix))


def _png(seed: int, suffix: str = "png") -> bytes:
    import io

    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format={"jpg": "jpeg"}.get(suffix, suffix))
    return file.getvalue()


def _read_images(folder: Path) -> None:
    from assay import data
    from assay.core.model import ImageSpec

    files = sorted(folder.glob("*.npz"))
    data.load(files[0] if files else folder, ImageSpec((3, 8, 8)), num_classes=4, class_names=("a", "b", "c", "d"))


def _read_texts(folder: Path) -> None:
    from assay import data
    from assay.core.model import TextSpec

    spec = TextSpec((12,), _tokenizer(), start=2, end=3, pad=0, vocabulary=len(WORDS))
    data.load(folder, spec, num_classes=2)


def _make_spec(folder: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "benchmarks" / "specs" / "first.yaml", folder)


def _read_spec(folder: Path) -> None:
    from assay.bench.spec_reader import read_spec

    for path in sorted(folder.iterdir()):
        if path.is_file():
            read_spec(path)


def _make_null(folder: Path) -> None:
    from importlib.resources import files

    shipped = files("assay") / "calibration" / "shipped" / "images.json"
    document = json.loads(shipped.read_text(encoding="utf-8"))
    document["models"] = document["models"][:3]
    (folder / "null.json").write_text(json.dumps(document))


def _read_null(folder: Path) -> None:
    from assay.calibration import file

    file.load(folder / "null.json")


def _make_secret(folder: Path) -> None:
    from assay.core.build import Secret
    from assay.triggers import Blend, Patch
    from assay.triggers.secret_file import SecretFile, dumps

    for name, trigger in (("patch", Patch()), ("blend", Blend())):
        secret = Secret(attack="badnets", trigger=trigger, target=0, planted_at="train")
        (folder / f"{name}.json").write_text(dumps(SecretFile(secret, "0" * 64)))


def _read_secret(folder: Path) -> None:
    from assay.triggers.secret_file import read

    for path in sorted(folder.glob("*.json")):
        read(path).secret.trigger(torch.rand(2, 3, 32, 32))


def _make_store(folder: Path) -> None:
    from assay.bench.job import Outcome
    from assay.bench.store import Store

    store = Store(folder)
    store.add_spec("tiny", "name: tiny\n")
    store.add([(str(number), "cell", {"method": "badnets", "seed": number}) for number in range(4)])
    for number in range(3):
        store.claim(str(number))
        store.finish(str(number), Outcome("done", {"asr": 0.5}, None, 1.0))
    store.close()


def _read_store(folder: Path) -> None:
    from contextlib import closing

    from assay.bench.records import open_existing

    with closing(open_existing(folder)) as records:
        list(records.records())
        records.specs()


def _make_archive(folder: Path) -> None:
    row = {"cell": "0" * 64, "what": "x", "state": "done", "result": {"asr": 0.5}, "error": None, "seconds": 1.0}
    spec = sorted((Path(__file__).parents[1] / "benchmarks" / "specs").glob("*.yaml"))[0].read_text()
    lines = [{"origin": {"assay": "0.1.0"}, "missing": 1, "spec": spec}, row]
    (folder / "a.records").write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def _read_archive(folder: Path) -> None:
    from assay.bench.archive import read_archive

    read_archive(folder / "a.records")


def _make_list(folder: Path) -> None:
    _make_onnx(folder)
    (folder / "models.txt").write_text(f"# models\n{folder}/model.onnx\n{folder}/*.onnx\nhf:owner/name\n")


def _read_list(folder: Path) -> None:
    from assay.batch.collection import find_models, model_digest

    for model in find_models([str(folder)], folder / "models.txt")[:20]:
        if not model.startswith("hf:"):
            model_digest(model)


def _make_commitment(folder: Path) -> None:
    from assay.auditing.seed_commitment import commit

    (folder / "c.json").write_text(json.dumps(commit(8, 4, 0, "a salt of many characters").to_json()))


def _read_commitment(folder: Path) -> None:
    from assay.auditing.seed_commitment import read_commitment

    read_commitment(folder / "c.json")


READERS = (
    Reader("model-safetensors", _make_safetensors, _load, 3),
    Reader("model-huggingface", _make_huggingface, _load, 3),
    Reader("model-text", _make_text_model, _load, 3),
    Reader("model-onnx", _make_onnx, _load, 6),
    Reader("model-optimum", _make_optimum, _load, 3),
    Reader("data-npz", _make_npz, _read_images, 6),
    Reader("data-parquet", _make_parquet, _read_images, 4),
    Reader("data-texts", _make_text_parquet, _read_texts, 3),
    Reader("data-images", _make_images, _read_images, 6),
    Reader("spec", _make_spec, _read_spec, 4),
    Reader("null", _make_null, _read_null, 2),
    Reader("secret", _make_secret, _read_secret, 4),
    Reader("store", _make_store, _read_store, 3),
    Reader("archive", _make_archive, _read_archive, 2),
    Reader("list", _make_list, _read_list, 3),
    Reader("commitment", _make_commitment, _read_commitment, 2),
)
