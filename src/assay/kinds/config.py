"""Kind of a model from its ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Beginnings and endings of class names, without "Model", in the order of the search. Whole words of the name count.
HEADS = (
    ("ForImageClassification", "image-classifier"),
    ("ForSequenceClassification", "text-classifier"),
    ("ForCausalLM", "causal-lm"),
    ("LMHead", "causal-lm"),
    ("DoubleHeads", "causal-lm"),
    ("ForCTC", "speech"),
    ("ForSpeech", "speech"),
    ("ForAudio", "speech"),
    ("ForXVector", "speech"),
    ("ForTextToSpeech", "speech"),
    ("ForVideo", "video"),
    ("ForConditionalGeneration", "generation"),
    ("ForSeq2SeqLM", "generation"),
    ("ForVision2Seq", "generation"),
    ("EncoderDecoder", "generation"),
    ("ForMasked", "pretraining"),
    ("ForPreTraining", "pretraining"),
    ("ForNextSentence", "pretraining"),
    ("ForTokenClassification", "token-task"),
    ("ForQuestionAnswering", "token-task"),
    ("ForMultipleChoice", "token-task"),
    ("Segmentation", "segmentation"),
    ("ForObjectDetection", "detection"),
    ("ForZeroShotObjectDetection", "detection"),
    ("ForDepth", "dense-images"),
    ("ForImage", "dense-images"),
    ("ForKeypoint", "dense-images"),
    ("ForTimeSeries", "time-series"),
    ("ForPrediction", "time-series"),
    ("ForRegression", "time-series"),
    ("ForZeroShotImage", "dual-encoder"),
)
AUDIO_TYPES = (
    "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "hubert", "wavlm", "unispeech", "unispeech-sat", "sew", "sew-d",
    "data2vec-audio", "whisper", "audio-spectrogram-transformer", "clap", "encodec", "mimi", "seamless_m4t", "speecht5",
    "speech_to_text", "vits", "bark", "musicgen", "moonshine", "dac", "univnet", "wav2vec2_bert",
    "fastspeech2_conformer",
)  # fmt: skip
VIDEO_TYPES = ("timesformer", "vivit", "videomae", "vjepa2", "xclip", "videoprism")
SIGNS_OF_DIFFUSERS = ("_diffusers_version", "_class_name")
SIGNS_OF_KERAS = ("keras_version", "registered_name", "build_config")
CLASSIFIERS = ("image-classifier", "text-classifier")


def kind_of_config(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the key of a model's kind, and the name of its class for messages.

    Args:
        config: Content of ``config.json``.
    """
    if any(key in config for key in SIGNS_OF_DIFFUSERS):
        return "diffusers", str(config.get("_class_name", ""))[:60]
    if "model_type" not in config and ("pretrained_cfg" in config or "architecture" in config):
        return "timm", str(config.get("architecture", ""))[:60]
    if "model_type" not in config and any(key in config for key in SIGNS_OF_KERAS):
        return "keras", str(config.get("class_name", ""))[:60]
    names = _class_names(config)
    shown = ", ".join(names)[:80] or f"model_type {str(config.get('model_type'))[:40]}"
    if "model_type" not in config:
        return "unknown-config", ", ".join(names)[:80]
    kind = _kind_of_class(names, config)
    if kind in CLASSIFIERS:
        kind = _kind_of_classifier(kind, config)
    return kind, shown


def _class_names(config: Mapping[str, Any]) -> list[str]:
    found = config.get("architectures")
    return [str(name) for name in (found if isinstance(found, list) else [] if found is None else [found])]


def _kind_of_class(names: list[str], config: Mapping[str, Any]) -> str:
    model_type = str(config.get("model_type"))
    if model_type in AUDIO_TYPES:
        return "speech"
    if model_type in VIDEO_TYPES:
        return "video"
    for name in names:
        for part, kind in HEADS:
            if part in name:
                return kind
    if not names:
        takes_images = any(key in config for key in ("image_size", "num_channels", "patch_size"))
        return "text-classifier" if _takes_text(config) and not takes_images else "image-classifier"
    if all(name.endswith(("Model", "ModelWithProjection")) for name in names):
        return _kind_of_encoder(config)
    return "other-head"


def _kind_of_encoder(config: Mapping[str, Any]) -> str:
    towers = "text_config" in config and "vision_config" in config
    if towers or any("WithProjection" in name for name in _class_names(config)):
        return "dual-encoder"
    return "text-encoder" if _takes_text(config) else "image-encoder"


def _kind_of_classifier(kind: str, config: Mapping[str, Any]) -> str:
    """Return the kind of a model with a classification head; transformers uses the same head for other tasks."""
    problem = config.get("problem_type")
    if problem == "multi_label_classification":
        return "multi-label"
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict | list) and labels else config.get("num_labels")
    return "regression" if problem == "regression" or count == 1 else kind


def _takes_text(config: Mapping[str, Any]) -> bool:
    return "vocab_size" in config
