"""Kinds of models: the reader of each, or the way to a model that assay reads."""

from __future__ import annotations

from dataclasses import dataclass

HUGGINGFACE, ONNX, SAFETENSORS, ADAPTER = "huggingface", "onnx", "safetensors", "lora"  # readers

AS_ONNX = "export it to ONNX on a machine that trusts it"
ITS_ENCODER = "save its encoder alone: AutoModel.from_pretrained('FOLDER').save_pretrained('ENCODER')"
TF_TO_ONNX = "export it with tf2onnx to ONNX, or load it in transformers with from_tf=True and save_pretrained"
FLAX = "load it in transformers 4 with from_flax=True, then save_pretrained writes model.safetensors"
FOREIGN_FILE = "give a .safetensors or .onnx file, or a folder of transformers"
MERGE = "merge it with merge_and_unload(), and save it"
SOURCE = "give the model from which it was made, as .safetensors or .onnx"
OWN_ARCH = "give the architecture and the .safetensors file, or export the model to ONNX"
OTHER_TASK = "give a classifier or an encoder of images or texts"


@dataclass(frozen=True)
class Kind:
    """One kind of model."""

    key: str
    label: str  # with its article, for messages
    reader: str | None = None  # None: assay has no reader for it
    fix: str = ""  # the way to a model that assay reads


KINDS = {
    kind.key: kind
    for kind in (
        Kind("image-classifier", "an image classifier of transformers", HUGGINGFACE),
        Kind(
            "multi-label",
            "a multi-label classifier (problem_type), whose answer is a set of labels",
            HUGGINGFACE,
            "audit the encoder below its last layer (features)",
        ),
        Kind("text-classifier", "a text classifier of transformers", HUGGINGFACE),
        Kind("text-encoder", "a text encoder of transformers", HUGGINGFACE),
        Kind("image-encoder", "an image encoder of transformers", HUGGINGFACE),
        Kind("dual-encoder", "a model of two towers, for images and texts", HUGGINGFACE),
        Kind("optimum", "an ONNX model with its transformers config", ONNX),
        Kind("onnx", "an ONNX model", ONNX),
        Kind("safetensors", "a safetensors file", SAFETENSORS),
        Kind("lora", "a LoRA adapter", ADAPTER, "give its base model as the reference: the two are merged in memory"),
        Kind(
            "timm",
            "a timm model",
            SAFETENSORS,
            "give the architecture (package.module:function, your function calls timm.create_model), or export the "
            "model to ONNX",
        ),
        Kind("regression", "a regression head with one output and no classes", None, ITS_ENCODER),
        Kind("causal-lm", "a language model that generates text", None, OTHER_TASK),
        Kind("generation", "a model that generates text from its input", None, OTHER_TASK),
        Kind("pretraining", "a model with its pretraining head", None, ITS_ENCODER),
        Kind("token-task", "a model that answers for tokens or spans of a text", None, ITS_ENCODER),
        Kind("segmentation", "a segmentation model", None, ITS_ENCODER),
        Kind("detection", "an object detection model", None, ITS_ENCODER),
        Kind("dense-images", "a model with images or points as its output", None, ITS_ENCODER),
        Kind("speech", "a speech or audio model", None, f"assay reads no audio; {OTHER_TASK}"),
        Kind("video", "a video model", None, f"assay reads no video; {OTHER_TASK}"),
        Kind("time-series", "a time-series model", None, OTHER_TASK),
        Kind("other-head", "a model with another head", None, OTHER_TASK),
        Kind("peft", "a PEFT adapter of another method than LoRA", None, MERGE),
        Kind("diffusers", "a diffusers pipeline, which generates images", None, OTHER_TASK),
        Kind(
            "saved-model",
            "a TensorFlow SavedModel",
            None,
            "export it: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx",
        ),
        Kind("gguf", "a GGUF file of llama.cpp, a language model", None, OTHER_TASK),
        Kind("flax", "weights of Flax alone", None, FLAX),
        Kind("tf-weights", "weights of TensorFlow alone", None, TF_TO_ONNX),
        Kind("keras", "a Keras model, which can hold code", None, AS_ONNX + " (tf2onnx)"),
        Kind("hdf5", "an HDF5 file, of Keras or TensorFlow", None, AS_ONNX + " (tf2onnx)"),
        Kind("coreml", "a Core ML model", None, SOURCE),
        Kind("tflite", "a TensorFlow Lite model", None, "export it: python -m tf2onnx.convert --tflite FILE"),
        Kind("torchscript", "a TorchScript program", None, "export its source module to ONNX: torch.onnx.export"),
        Kind("pickle", "a pickle, which can run code when loaded", None, AS_ONNX),
        Kind("ort", "a model in ONNX Runtime's own format", None, "give the .onnx file from which it was made"),
        Kind("openvino", "an OpenVINO model", None, SOURCE),
        Kind("tensorrt", "a TensorRT engine, for one kind of GPU", None, "give the .onnx file from which it was made"),
        Kind("paddle", "a PaddlePaddle model", None, "export it with paddle2onnx"),
        Kind("archive", "an archive", None, "unpack it, and give the folder or the file inside"),
        Kind("numpy", "NumPy arrays, which are data", None, "give them as the data, and a model as the model"),
        Kind("image", "an image, which is data", None, "give it as the data, and a model as the model"),
        Kind("sentence-transformers", "a sentence-transformers folder", None, "give its folder with config.json"),
        Kind("hub-cache", "a folder of the hub's local cache", None, "give its folder snapshots/REVISION"),
        Kind("checkpoints", "a folder of training checkpoints", None, "give one of them"),
        Kind("several-models", "several models", None, "give one of them"),
        Kind("no-weights", "a config without weights", None, "download the weights too (model.safetensors)"),
        Kind("empty-folder", "an empty folder", None, "download or save the model again"),
        Kind("unknown-folder", "a folder without a model", None, FOREIGN_FILE),
        Kind("unknown-config", "a config.json that names no model of transformers", None, OWN_ARCH),
        Kind("unknown", "a file of another kind", None, FOREIGN_FILE),
    )
}  # fmt: skip
