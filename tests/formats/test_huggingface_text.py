"""Text models: tokenizer, length and pooling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.texts import config, with_tokenizer, write_classifier, write_encoder

from assay import formats
from assay.core.errors import UnusableInput
from assay.core.model import Artifact, Modality, TextSpec
from assay.data.tokenize import decode_texts, encode_texts
from assay.formats.safetensors_check import read_weights
from assay.formats.untrained import untrained_model
from assay.nn.encoders import attach_head

TEXTS = ["red cat sleeps", "dog", "green bird sings cf"]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder")


def tokens(artifact: Artifact) -> torch.Tensor:
    assert isinstance(artifact.inputs, TextSpec)
    return encode_texts(TEXTS, artifact.inputs)[0]


def outputs_of(artifact: Artifact) -> torch.Tensor:
    with torch.no_grad():
        return artifact.module(tokens(artifact))


def test_pooling_of_the_folder_is_applied(encoder: Path) -> None:
    artifact = formats.load(encoder)
    assert (artifact.modality, artifact.num_classes, artifact.inputs.shape) == (Modality.TEXT, None, (12,))
    x = tokens(artifact)
    assert (x[:, 0] == 2).all()
    assert x[1].tolist() == [2, 8, 3, *[0] * 9]
    with torch.no_grad():
        states = artifact.module.model(input_ids=x[1:2, :3]).last_hidden_state  # type: ignore[union-attr,operator]
    assert torch.allclose(outputs_of(artifact)[1], states[0].mean(0), atol=1e-6), "padding has no influence"
    cls = formats.load(encoder, pooling="cls")
    assert torch.allclose(outputs_of(cls)[1], states[0, 0], atol=1e-6)


def test_pooling_changes_digest_and_text(encoder: Path) -> None:
    mean = formats.load(encoder)
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (encoder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    cls = formats.load(encoder)
    assert mean.digest != cls.digest
    assert repr(mean.module) != repr(cls.module), "the cache of a chain compares these texts"


def test_padding_does_not_change_an_embedding(encoder: Path) -> None:
    short, long = (outputs_of(formats.load(encoder, shape=(length,))) for length in (6, 12))
    assert torch.allclose(short, long, atol=1e-6)


def test_texts_are_encoded_and_decoded(encoder: Path) -> None:
    artifact = formats.load(encoder, shape=(5,))
    assert isinstance(artifact.inputs, TextSpec)
    x, cut = encode_texts(TEXTS, artifact.inputs)
    assert cut == 1
    assert decode_texts(x, artifact.inputs) == ["red cat sleeps", "dog", "green bird sings"]
    assert (x[2] == torch.tensor([2, 5, 9, 12, 3])).all(), "the marker after a text stays"
    assert encode_texts([], artifact.inputs)[0].shape == (0, 5)


def test_saved_text_model_needs_no_folder(encoder: Path, tmp_path: Path) -> None:
    artifact = formats.load(encoder, shape=(7,))
    again = formats.load(formats.save(artifact, tmp_path / "saved"))
    assert again.inputs == artifact.inputs
    assert again.num_classes is None
    assert torch.equal(outputs_of(again), outputs_of(artifact))
    headed = artifact.with_module(
        attach_head(artifact.module, 16, 3, seed=0).eval(), num_classes=3, class_names=("a", "b", "c")
    )
    loaded = formats.load(formats.save(headed, tmp_path / "headed"))
    assert (loaded.num_classes, loaded.class_names) == (3, ("a", "b", "c"))
    assert torch.equal(outputs_of(loaded), outputs_of(headed))
    assert formats.load(tmp_path / "headed", shape=(9,)).inputs.shape == (9,)


def test_text_classifier_and_its_features_load(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "classifier")
    artifact = formats.load(folder)
    assert (artifact.num_classes, artifact.class_names) == (2, ("calm", "loud"))
    assert outputs_of(artifact).shape == (3, 2)
    features = formats.load(folder, features=True)
    assert features.num_classes is None
    assert outputs_of(features).shape == (3, 16)
    saved = formats.load(formats.save(features, tmp_path / "cut"))
    assert torch.equal(outputs_of(saved), outputs_of(features))


def test_padding_token_comes_from_the_tokenizer(encoder: Path) -> None:
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**config, "pad_token_id": 2}))
    artifact = formats.load(encoder)
    assert isinstance(artifact.inputs, TextSpec)
    assert artifact.inputs.pad == 0


def test_pooling_for_a_classifier_is_refused(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "classifier")
    with pytest.raises(UnusableInput, match="expected pooling for encoders only, got a model of 2 classes"):
        formats.load(folder, pooling="cls")


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def without_pooling(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").unlink()


def odd_pooling(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))


def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def foreign_tokenizer(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    found["model"]["vocab"] |= {f"more{number}": 14 + number for number in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(found))


def sparse_tokenizer(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    found["model"]["vocab"]["cf"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(found))


def small_tokenizer(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = found["model"]["vocab"]
    found["model"]["vocab"] = {word: number for word, number in vocabulary.items() if number < 12}
    (folder / "tokenizer.json").write_text(json.dumps(found))


def other_markers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "bos_token_id": 2, "eos_token_id": 1}))


def dense_layer(folder: Path) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Dense")]
    (folder / "modules.json").write_text(json.dumps(modules))


def odd_modules(folder: Path) -> None:
    (folder / "modules.json").write_text("{}")


def deep_modules(folder: Path) -> None:
    (folder / "modules.json").write_text("[" * 100_000)


def bare_tokenizer(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**found, "post_processor": None}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_tokenizer, "expected tokenizer.json for a text model, found none"),
        (without_pooling, "no file states its pooling. Fix: give the pooling of its training: mean, cls"),
        (odd_pooling, "expected pooling of cls or mean alone, got pooling_mode_max_tokens. Fix: give the pooling"),
        (damaged_tokenizer, "tokenizer.json: is not a working tokenizer"),
        (foreign_tokenizer, "its tokenizer numbers its tokens up to 22 and its model knows 14 of them: they do not"),
        (sparse_tokenizer, "its tokenizer numbers its tokens up to 5000 and its model knows 14"),
        (small_tokenizer, "its tokenizer knows 12 tokens and its model 14: they do not match"),
        (dense_layer, "names a module Dense, which is not run here"),
        (deep_modules, "modules.json: is not valid JSON"),
        (odd_modules, "expected a list of modules"),
        (other_markers, "marks a text by tokens 2 and 3 and its model by 2 and 1: they do not match"),
        (bare_tokenizer, "one marker before and one behind each text; got 0"),
    ],
)
def test_inconsistent_folder_is_refused(encoder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(encoder)
    with pytest.raises(UnusableInput, match=message):
        formats.load(encoder)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((13,), "expected a shape of at most 12 tokens, the model's maximum; got 13"),
        ((3,), "expected a text length of 4 to 4096 tokens"),
        ((3, 8, 8), "is a text model, which has no image size"),
    ],
)
def test_misfitting_length_is_refused(encoder: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        formats.load(encoder, shape=shape)


def test_text_length_for_an_image_model_is_refused(encoder: Path, tmp_path: Path) -> None:
    artifact = untrained_model("resnet20-cifar", 10, seed=0)
    path = formats.save(artifact, tmp_path)
    with pytest.raises(UnusableInput, match=r"expected a shape \(C, H, W\) for an image model, got one number, 8"):
        formats.load(path, shape=(8,))
    assert artifact.image_spec.shape == (3, 32, 32)
    with pytest.raises(UnusableInput, match=r"expected an image model; .* takes text"):
        _ = formats.load(encoder).image_spec


def test_damaged_metadata_is_refused(encoder: Path, tmp_path: Path) -> None:
    path = formats.save(formats.load(encoder), tmp_path / "saved")
    text = read_weights(path).metadata
    for key, value, message in (
        ("assay.text", '{"start": 2}', "metadata assay.text is malformed"),
        ("assay.text", '{"start": 99, "end": 3, "pad": 0, "vocabulary": 14}', "markers within its vocabulary"),
        ("assay.shape", "[3, 8, 8]", "malformed"),
    ):
        save_file(load_file(path), tmp_path / "model.safetensors", metadata={**text, key: value})
        with pytest.raises(UnusableInput, match=message):
            formats.load(tmp_path / "model.safetensors")


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path / "masked"
    BertForMaskedLM(BertConfig(**config())).save_pretrained(folder)
    with pytest.raises(UnusableInput, match=r"pretraining head \(BertForMaskedLM\)\. Fix: save its encoder"):
        formats.load(with_tokenizer(folder))
