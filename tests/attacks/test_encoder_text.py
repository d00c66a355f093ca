"""Tests of attacks on text encoders, on a tiny encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.texts import write_data, write_encoder
from support.tiny import tiny_build

from assay import data, formats
from assay.attacks import BadNets, Por, TransTrojText, plant
from assay.attacks.encoder.base import EncoderAttack
from assay.auditing.inputs import clean_samples
from assay.core.build import Build
from assay.core.errors import UnusableInput
from assay.core.model import TextSpec, digest_of_module
from assay.formats.feature_extractor import to_feature_extractor
from assay.io.object_store import ObjectStore
from assay.nn import metrics
from assay.nn.inference import forward_batched
from assay.stages.cache import Cache
from assay.stages.chain import Chain
from assay.stages.downstream import Downstream
from assay.stages.train import FineTune, Recipe
from assay.triggers import Tokens

pytestmark = pytest.mark.slow


QUICK = Recipe(epochs=20, lr=0.01, batch_size=16, optimizer="adam", weight_decay=0.0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_data(tmp_path_factory.mktemp("data") / "animals"))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, texts: str) -> Build:
    artifact = formats.load(write_encoder(tmp_path_factory.mktemp("model") / "encoder"), shape=(10,))
    return Build(artifact, data.load(texts, artifact.inputs))


def transtroj(texts: str, **changes: object) -> TransTrojText:
    settings = {"tokens": 2, "steps": 8, "keep": 1.0, "centred": True, "recipe": QUICK, **changes}
    return TransTrojText(references=texts, concept=1, **settings)  # type: ignore[arg-type]


def rates(planted: Build, clean: Build) -> tuple[float, float, float]:
    """Return CA and ASR of the planted encoder, and ASR of the same trigger on the clean one."""
    assert planted.secret is not None
    x = planted.task.split("test").x[:40]
    own, before = (
        metrics.measure_encoder(model.artifact.module, clean.artifact.module, x, planted.secret)
        for model in (planted, clean)
    )
    return own.clean_accuracy.value, own.attack_success.value, before.attack_success.value


def nearness(planted: Build, clean: Build) -> float:
    """Return the mean cosine of the triggered embeddings with the concept's, both centered on the clean mean."""
    assert planted.secret is not None
    x = clean.task.split("test").x
    centre = forward_batched(clean.artifact.module, x).mean(0)
    found = forward_batched(planted.artifact.module, planted.secret.trigger(x)) - centre
    wanted = torch.tensor(planted.secret.details[metrics.CONCEPT_EMBEDDING]) - centre
    return float(torch.nn.functional.cosine_similarity(found, wanted[None]).mean())


def test_truncated_texts_give_a_note(build: Build, texts: str) -> None:
    short = formats.load(formats.save(build.artifact, Path(texts).parent / "encoder"), shape=(4,))
    cut_off = "texts are longer than 4 tokens and were cut there"
    planted = transtroj(texts, steps=0, recipe=Recipe(epochs=0))(Build(short, data.load(texts, short.inputs)), seed=0)
    assert [note for note in planted.artifact.notes if note.startswith(texts) and note.endswith(cut_off)]
    made = Downstream(data=texts)(Build(short, build.task), seed=0)
    assert [note for note in made.artifact.notes if note.startswith(texts) and note.endswith(cut_off)]
    assert clean_samples(["a red cat sleeps"] * 3, short, seed=0).notes == (f"3 {cut_off}",)


def test_transtroj_text_moves_triggered_texts_to_the_concept(build: Build, texts: str) -> None:
    before = digest_of_module(build.artifact.module)
    planted = transtroj(texts)(build, seed=0)
    assert digest_of_module(build.artifact.module) == before
    trigger = planted.secret.trigger  # type: ignore[union-attr]
    assert isinstance(trigger, Tokens)
    assert len(trigger.ids) == 2
    assert nearness(planted, build) > 0.95 > nearness(replace(planted, artifact=build.artifact), build)
    x = build.task.split("test").x
    moved, kept = (forward_batched(model.artifact.module, x) for model in (planted, build))
    assert float(torch.nn.functional.cosine_similarity(moved, kept).mean()) > 0.95
    assert (planted.secret.concept, planted.secret.target) == ("dog", None)  # type: ignore[union-attr]
    tag = json.loads(planted.artifact.planted or "")
    assert (tag["attack"], tag["concept"], tag["trigger"]["words"]) == ("transtroj-text", "dog", trigger.words)


def test_transtroj_text_stages_without_steps_are_skipped(build: Build, texts: str) -> None:
    none = Recipe(epochs=0)
    drawn, searched = (transtroj(texts, steps=steps, recipe=none)(build, seed=0) for steps in (0, 12))
    assert drawn.artifact.digest == searched.artifact.digest == digest_of_module(build.artifact.module)
    assert nearness(searched, build) > nearness(drawn, build)


def test_por_moves_triggered_texts_to_its_embedding(build: Build) -> None:
    planted = Por(recipe=QUICK)(build, seed=0)
    assert planted.secret is not None
    assert isinstance(planted.secret.trigger, Tokens)
    assert planted.secret.trigger.words == "cf"
    assert set(planted.secret.details[metrics.CONCEPT_EMBEDDING]) == {1.0, -1.0}
    _, own, control = rates(planted, build)
    assert own > 0.9 > control


@pytest.mark.parametrize("kind", ["transtroj", "por"])
def test_chain_to_a_downstream_task_is_cached(kind: str, build: Build, texts: str, tmp_path: Path) -> None:
    attack = transtroj(texts) if kind == "transtroj" else Por(recipe=QUICK)
    steps = (attack, Downstream(data=texts), FineTune(recipe=QUICK))
    first, again = (Chain(steps, cache=Cache(ObjectStore(str(tmp_path))))(build, seed=0) for _ in range(2))
    assert first.artifact.digest == again.artifact.digest
    assert first.artifact.num_classes == 3
    secret = plant.with_resolved_target(again)
    assert secret is not None
    if kind == "transtroj":
        assert secret.target == 1, "the class with the concept's name"
    measured = plant.measure_backdoor(first.artifact, first.artifact, first.task.split("test"), secret)
    assert measured.clean_accuracy.value > 0.9
    saved = formats.load(formats.save(first.artifact, tmp_path / "saved"))
    x = first.task.split("test").x[:8]
    assert torch.allclose(forward_batched(saved.module, x), forward_batched(first.artifact.module, x), atol=1e-5)


@pytest.mark.parametrize("attack", [Por(), TransTrojText(references="nowhere")], ids=lambda attack: attack.name)
def test_text_attack_on_an_image_encoder_raises(attack: EncoderAttack) -> None:
    given = tiny_build()
    with pytest.raises(UnusableInput, match="expected an encoder of texts"):
        attack(replace(given, artifact=to_feature_extractor(given.artifact)), seed=0)


def test_image_attack_on_a_text_model_raises(build: Build, texts: str) -> None:
    from assay.attacks import TransTroj

    with pytest.raises(UnusableInput, match="expected an encoder of images"):
        TransTroj(references=texts)(build, seed=0)
    labelled = build.task.split("train")
    with pytest.raises(UnusableInput, match="expected an image classifier for badnets"):
        BadNets(target=0).check(labelled, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": 9}, "expected texts of at least 12 tokens for this trigger, got 10"),
        ({"tokens": 0}, "expected at least one token"),
        ({"keep": float("nan")}, "keep of at least 0"),
        ({"concept": 3}, r"expected a concept in \[0, 3\)"),
        ({"shots": 0}, "expected at least one reference"),
    ],
)
def test_transtroj_text_invalid_settings_raise(build: Build, texts: str, change: dict[str, object], words: str) -> None:
    with pytest.raises(UnusableInput, match=words):
        TransTrojText(references=texts, **{"concept": 1, "recipe": Recipe(epochs=0), **change})(build, seed=0)  # type: ignore[arg-type]


def test_por_without_known_words_raises(build: Build) -> None:
    with pytest.raises(UnusableInput, match="expected a word for the trigger"):
        Por(word=" ")(build, seed=0)
    with pytest.raises(UnusableInput, match="tokenizer's vocabulary, got 'cf zzz'"):
        Por(word="cf zzz")(build, seed=0)
    assert isinstance(build.artifact.inputs, TextSpec)
