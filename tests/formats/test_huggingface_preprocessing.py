"""Settings of image processors, as repositories contain them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from assay.core.errors import UnusableInput
from assay.core.model import ImageSpec
from assay.data.images import decode_image
from assay.formats.huggingface.image_processor import load_image_processor
from assay.formats.huggingface.preprocessing import read_preprocessing
from assay.formats.normalization import Normalization

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": {"height": 32, "width": 48}}, ImageSpec((3, 32, 48))),
        ({"size": 224, "resample": 3}, ImageSpec((3, 224, 224), resample="bicubic")),
        ({"size": [32, 32], "resample": 0}, ImageSpec((3, 32, 32), resample="nearest")),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            ImageSpec((3, 224, 224), resize=256, crop=True),
        ),
        ({"size": 256, "crop_size": 224}, ImageSpec((3, 224, 224), resize=256, crop=True)),
        (
            {"size": {"height": 256, "width": 256}, "crop_size": 224, "resample": 1},
            ImageSpec((3, 224, 224), resize=(256, 256), crop=True, resample="lanczos"),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
            ImageSpec((3, 224, 224), resize=256, crop=True, resample="bicubic"),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
            ImageSpec((3, 384, 384), resample="bicubic"),
        ),
        ({"do_center_crop": False, "crop_size": 10, "size": {"shortest_edge": 40}}, ImageSpec((3, 40, 40))),
        ({}, ImageSpec((3, 96, 96))),
    ],
)
def test_size_settings_give_the_image_spec(settings: dict[str, Any], expected: ImageSpec) -> None:
    assert read_preprocessing(settings | HALF, {"image_size": 96}, None, "x").inputs == expected


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({}, 0.5, 0.5),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"rescale_factor": 2 / 255}, 0.25, 0.25),
        ({"do_rescale": False}, 0.5 / 255, 0.5 / 255),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, 0.5, 0.5),
        ({"image_processor_type": "EfficientNetImageProcessor"}, 0.5, 0.25),
        ({"image_processor_type": "EfficientNetImageProcessor", "include_top": False}, 0.5, 0.5),
    ],
)
def test_pixel_settings_give_the_normalization(settings: dict[str, Any], mean: float, std: float) -> None:
    found = read_preprocessing(HALF | settings, {"image_size": 8}, None, "x").normalization
    assert found.mean == pytest.approx((mean,) * 3)
    assert found.std == pytest.approx((std,) * 3)


def test_given_normalization_and_shape_replace_the_settings() -> None:
    given = Normalization((0.1,), (0.2,))
    assert read_preprocessing(HALF, {}, given, "x").normalization is given
    assert read_preprocessing(HALF, {}, given, "x", shape=(1, 8, 9)).inputs == ImageSpec((1, 8, 9))


def test_mobilevit_flips_channels() -> None:
    assert read_preprocessing({"image_processor_type": "MobileViTImageProcessor"}, {}, None, "x").flip
    assert not read_preprocessing(HALF, {}, None, "x").flip


@pytest.mark.parametrize(
    "settings",
    [
        {"size": -3},
        {"size": 8, "resample": [2], "rescale_factor": -1},
        {"size": {"height": 10**9, "width": 3}},
        {"size": {"shortest_edge": "big"}},
        {"size": "big"},
        {"crop_size": [1, 2, 3]},
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "longest_edge": 10**9}},
        {"image_processor_type": "PoolFormerImageProcessor", "size": 224, "crop_pct": 1e-5},
        {
            "image_processor_type": "PoolFormerImageProcessor",
            "size": [4000, 4000],
            "do_center_crop": False,
            "crop_pct": 1e-5,
        },
        {"image_processor_type": "ViTImageProcessor", "do_pad": True, "pad_size": {"height": 10**6, "width": 10**6}},
        {"image_processor_type": "PerceiverImageProcessor", "size": [4000, 4000], "crop_size": [10, 10]},
        {"image_processor_type": "ViTImageProcessor", "resample": 6},
        {"image_std": [0.0, 1.0, 1.0]},
        {"image_mean": "x"},
        {"rescale_factor": "x"},
        {"rescale_factor": 0},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 8}, "crop_pct": "x"},
    ],
)
def test_hostile_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UnusableInput, match=r"expected|go together"):
        read_preprocessing(HALF | settings, {}, None, "x")


IMAGENET = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_resize": True,
}
EDGE_224, SQUARE_224 = {"shortest_edge": 224}, {"height": 224, "width": 224}
PROCESSORS: dict[str, dict[str, Any]] = {
    "LevitImageProcessor": {"size": EDGE_224, "crop_size": SQUARE_224, "do_center_crop": True, "resample": 3},
    "PoolFormerImageProcessor": {
        "size": EDGE_224, "crop_pct": 0.9, "crop_size": SQUARE_224, "do_center_crop": True, "resample": 3,
    },
    "ConvNextImageProcessor": {"size": EDGE_224, "crop_pct": 0.875, "resample": 3},
    "ViTImageProcessor": {"size": SQUARE_224, "resample": 2},
    "DeiTImageProcessor": {"size": 256, "crop_size": 224},
    "CLIPImageProcessor": {"size": 224, "crop_size": 224},
    "EfficientNetImageProcessor": {"size": {"height": 120, "width": 100}, "do_normalize": False},
    "MobileViTImageProcessor": {"size": 100, "crop_size": 90},
    "PerceiverImageProcessor": {"size": {"height": 100, "width": 90}, "crop_size": {"height": 120, "width": 80}},
}  # fmt: skip


@pytest.mark.parametrize("defaults", [False, True], ids=["stated", "defaults"])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_images_become_the_inputs_that_transformers_makes(tmp_path: Path, kind: str, defaults: bool) -> None:
    from transformers import AutoImageProcessor

    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    image, file = Image.fromarray(pixels).resize((400, 300)), io.BytesIO()
    image.save(file, format="PNG")
    stated = {} if defaults or kind.startswith("MobileViT") else IMAGENET
    settings = {"image_processor_type": kind, **stated, **({} if defaults else PROCESSORS[kind])}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    found = read_preprocessing(settings, {}, None, "x")
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (found.normalization.mean, found.normalization.std))
    own = (decode_image(file.getvalue(), found.inputs, "x") - mean) / std
    assert torch.allclose(own.flip(0) if found.flip else own, expected.float(), atol=1e-4)


@pytest.mark.parametrize("key", ["rescale_offset", "include_top", "do_flip_channel_order"])
def test_setting_that_its_class_ignores_is_ignored(key: str) -> None:
    settings = {"image_processor_type": "ViTImageProcessor", "size": 32}
    assert read_preprocessing({**settings, key: True}, {}, None, "x") == read_preprocessing(settings, {}, None, "x")


@pytest.mark.parametrize("resample", range(6))
def test_all_resampling_methods_of_pillow_are_equal(resample: int) -> None:
    settings = {"image_processor_type": "ViTImageProcessor", "size": 40, "resample": resample}
    assert read_preprocessing(settings, {}, None, "x").notes == ()  # compared with transformers


def test_inputs_of_varying_shape_give_a_note() -> None:
    settings = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "do_center_crop": False}
    found = read_preprocessing(settings, {}, None, "x")
    assert found.inputs == ImageSpec((3, 40, 40), resample="bicubic")
    assert "a shape that depends on the image" in found.notes[0]
    assert read_preprocessing({**settings, "do_center_crop": True, "crop_size": 40}, {}, None, "x").notes == ()


def test_settings_that_fail_in_transformers_are_read_with_a_note() -> None:
    settings = {"image_processor_type": "ConvNextImageProcessor", "size": {"height": 40, "width": 48}, "resample": 2}
    found = read_preprocessing(HALF | settings, {}, None, "x")
    assert found.inputs == ImageSpec((3, 40, 48))
    assert not found.guessed
    assert "(ConvNextImageProcessor) fails in transformers with these settings" in found.notes[0]


def test_processor_that_transformers_does_not_have_gives_a_note() -> None:
    found = read_preprocessing({**HALF, "image_processor_type": "FrobImageProcessor", "size": 32}, {}, None, "x")
    assert "does not have its image processor 'FrobImageProcessor'" in found.notes[0]


def test_omitted_mean_of_a_known_processor_is_its_default() -> None:
    found = read_preprocessing({"feature_extractor_type": "ViTFeatureExtractor", "size": 32}, {}, None, "x")
    assert (found.normalization.mean, found.normalization.std) == (pytest.approx((0.5,) * 3), pytest.approx((0.5,) * 3))
    of_model = read_preprocessing({"size": 32}, {"model_type": "levit"}, None, "x").normalization
    assert of_model.mean == pytest.approx((0.485, 0.456, 0.406))


def test_omitted_mean_of_an_unknown_processor_is_refused() -> None:
    for settings in ({"size": 32}, {"size": 32, "image_processor_type": "FrobImageProcessor"}):
        with pytest.raises(UnusableInput, match="expected image_mean and image_std"):
            read_preprocessing(settings, {}, None, "x")
        assert read_preprocessing(settings, {}, Normalization((0.5,), (0.5,)), "x").inputs == ImageSpec((3, 32, 32))


def test_inputs_too_large_for_a_comparison_are_refused() -> None:
    settings = {"image_processor_type": "Qwen2VLImageProcessor"}  # its sizes are numbers of pixels, not lengths
    with pytest.raises(UnusableInput, match=r"expected inputs of at most 5,000,000 pixels, got 9,834,496"):
        read_preprocessing(settings, {}, None, "x")


@pytest.mark.parametrize("kind", ["Siglip2ImageProcessor", "DonutImageProcessor"])
def test_other_preprocessing_than_resize_and_crop_is_refused(kind: str) -> None:
    settings = {"image_processor_type": kind}
    with pytest.raises(UnusableInput, match=rf"got another kind \({kind}\). Fix: give shape, mean and std"):
        read_preprocessing(settings, {}, None, "x")
    given = read_preprocessing(settings, {}, Normalization((0.5,), (0.5,)), "x", shape=(3, 32, 32))
    assert given.inputs == ImageSpec((3, 32, 32))


@pytest.mark.parametrize("kind", ["AutoImageProcessor", "AutoModel", "Trainer", "pipeline", "os.system", 7, ["x"]])
def test_processor_types_look_up_image_processors_only(kind: object) -> None:
    assert load_image_processor({"image_processor_type": kind}, "vit") is None


def test_unknown_settings_never_reach_the_processor() -> None:
    settings = {"to_dict": True, "_preprocess": "x", "image_grid_pinpoints": [[10**6, 10**6]], "size": 32}
    for kind in ("ViTImageProcessor", "LlavaNextImageProcessor"):
        processor = load_image_processor({**settings, "image_processor_type": kind}, None)
        assert callable(processor.to_dict)
        assert processor.to_dict().get("image_grid_pinpoints") != settings["image_grid_pinpoints"]


def test_null_settings_are_omitted_ones() -> None:
    with pytest.raises(UnusableInput, match="expected image_mean and image_std"):
        read_preprocessing({"size": 32, "do_normalize": None}, {}, None, "x")
    settings = {"image_processor_type": "ViTImageProcessor", "size": 32, "do_normalize": None, "image_mean": None}
    assert read_preprocessing(settings, {}, None, "x").normalization.mean == pytest.approx((0.5,) * 3)


def test_code_named_by_a_processor_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    settings = {"auto_map": {"AutoImageProcessor": "evil.Processor"}, "image_processor_type": "ViTImageProcessor"}
    assert type(load_image_processor(settings, "vit")).__name__ == "ViTImageProcessorPil"
