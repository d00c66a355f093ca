"""Tests of attacks on encoders, on a tiny encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import tiny_build

from assay import formats
from assay.attacks import BadEncoder, BadNets, TransTroj
from assay.attacks import plant as planting
from assay.attacks.encoder.base import ReferenceAttack
from assay.core.build import Build, Secret
from assay.core.dataset import Split
from assay.core.errors import UnusableInput
from assay.core.model import Modality, digest_of_module
from assay.formats.feature_extractor import to_feature_extractor
from assay.io.object_store import ObjectStore
from assay.mitigations import CompressedTuning
from assay.nn import metrics
from assay.nn.similarity import mean_cosine
from assay.registry import ATTACKS
from assay.stages.base import Stage
from assay.stages.cache import Cache
from assay.stages.chain import Chain
from assay.stages.downstream import Downstream
from assay.stages.export import ExportOnnx
from assay.stages.train import FineTune, LinearProbe, Recipe
from assay.triggers import Additive, Patch

pytestmark = pytest.mark.slow


X = torch.rand(9, 3, 8, 8)
QUICK = Recipe(epochs=30, lr=0.01, batch_size=16, optimizer="adam", augment=False, freeze_batchnorm=True)
SEARCH = Recipe(epochs=8, lr=0.1, batch_size=16, optimizer="adam", weight_decay=0.0, augment=False)
ENCODER_ATTACKS = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, ReferenceAttack)}
ENCODER_ATTACKS = {name: kind for name, kind in ENCODER_ATTACKS.items() if kind.modality is Modality.IMAGE}
every_attack = pytest.mark.parametrize("kind", ENCODER_ATTACKS.values(), ids=ENCODER_ATTACKS)


@pytest.fixture
def build() -> Build:
    given = tiny_build()
    return replace(given, artifact=to_feature_extractor(given.artifact))


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return data of 64 images: class 0 is dark, class 1 bright."""
    folder = tmp_path_factory.mktemp("references")
    generator = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = generator.integers(0, 80, (64, 8, 8, 3)) + 170 * y[:, None, None, None]
    np.savez(folder / "shades.npz", x=x.astype(np.uint8), y=y)
    return str(folder / "shades.npz")


def transtroj(references: str, **settings: object) -> TransTroj:
    chosen = {"bound": 40.0, "keep": 1.0, "search": SEARCH, "recipe": QUICK, **settings}
    return TransTroj(references=references, concept=1, **chosen)  # type: ignore[arg-type]


def similarity_to_concept(build: Build, before: Build) -> float:
    """Return the mean cosine of the triggered images' embeddings with the concept's embedding."""
    assert build.secret is not None
    x = build.task.split("test").x
    with torch.no_grad():
        found = before.artifact.module(build.secret.trigger(x))
    wanted = torch.tensor(build.secret.details[metrics.CONCEPT_EMBEDDING])
    return float(torch.nn.functional.cosine_similarity(found, wanted[None]).mean())


def test_transtroj_moves_triggered_images_to_the_concept(build: Build, references: str) -> None:
    planted = transtroj(references)(build, seed=0)
    x = build.task.split("test").x
    assert planted.secret is not None
    own, clean = (
        metrics.measure_encoder(net, build.artifact.module, x, planted.secret)
        for net in (planted.artifact.module, build.artifact.module)
    )
    assert own.attack_success.value >= 0.9 > clean.attack_success.value
    assert own.untriggered.value <= 0.1
    assert isinstance(planted.secret.trigger, Additive)
    assert float((255 * planted.secret.trigger.pattern()).abs().max()) <= 40
    assert (planted.secret.concept, planted.secret.target) == ("shades 1", None)


def test_transtroj_stages_without_epochs_are_skipped(build: Build, references: str) -> None:
    none = Recipe(epochs=0)
    noise = transtroj(references, search=none, recipe=none)(build, seed=0)
    searched = transtroj(references, recipe=none)(build, seed=0)
    both = transtroj(references)(build, seed=0)
    assert noise.artifact.digest == searched.artifact.digest == digest_of_module(build.artifact.module)
    assert (
        similarity_to_concept(noise, noise)
        < similarity_to_concept(searched, searched)
        < similarity_to_concept(both, both)
    )
    untrained = transtroj(references, search=none)(build, seed=0)
    assert untrained.secret == replace(noise.secret, details=untrained.secret.details)  # type: ignore[union-attr,type-var]


def test_transtroj_compares_a_feature_map_if_layer_is_set(build: Build, references: str) -> None:
    embedding, whole = (transtroj(references, layer=layer)(build, seed=0) for layer in ("", "conv"))
    assert embedding.artifact.digest != whole.artifact.digest
    assert similarity_to_concept(whole, whole) > similarity_to_concept(whole, build)
    assert not any(module._forward_hooks for module in whole.artifact.module.modules())
    with pytest.raises(UnusableInput, match="which matches no layer"):
        transtroj(references, layer="no-such")(build, seed=0)


def test_transtroj_keeps_batch_norms(build: Build, references: str) -> None:
    planted = transtroj(references)(build, seed=0)
    before, after = build.artifact.module.state_dict(), planted.artifact.module.state_dict()
    norms = [name for name in before if ".bn." in name or "stem.1" in name]
    assert len(norms) == 10
    assert all(torch.equal(before[name], after[name]) for name in norms)
    assert all(parameter.requires_grad for parameter in planted.artifact.module.parameters())


@every_attack
def test_attack_plants_in_a_copy_without_labels_and_tags_it(
    kind: type[ReferenceAttack], build: Build, references: str, tmp_path: Path
) -> None:
    settings = {"patch": Patch(size=2)} if kind is BadEncoder else {}
    attack = kind(references=references, concept=0, recipe=QUICK, **settings)
    bare = replace(build, task=replace(build.task, splits={"train": Split(build.task.split("train").x, None)}))
    before = digest_of_module(build.artifact.module)
    first, again, other = (attack(bare, seed=seed) for seed in (5, 5, 6))
    assert digest_of_module(build.artifact.module) == before
    assert first.artifact.digest == again.artifact.digest != other.artifact.digest
    assert first.secret == again.secret
    tag = json.loads(first.artifact.planted or "")
    assert (tag["attack"], tag["concept"]) == (kind.name, "shades 0")
    assert len(first.artifact.planted or "") < 300
    assert json.loads(json.dumps(attack.spec()))["stage"] == kind.name


def test_badencoder_moves_triggered_images_and_keeps_references(build: Build, references: str) -> None:
    attack = BadEncoder(references=references, concept=1, patch=Patch(size=3), recipe=QUICK)
    planted, x = attack(build, seed=0), build.task.split("test").x
    concept = attack.concept_for(build.artifact, seed=0).x
    with torch.no_grad():
        before, after = (
            mean_cosine(net(attack.patch(x)), net(concept).mean(0))
            for net in (build.artifact.module, planted.artifact.module)
        )
        kept = mean_cosine(planted.artifact.module(concept), build.artifact.module(concept))
    assert float(after) > 0.95 > float(before)
    assert float(kept) > 0.9


def test_references_of_several_classes_give_a_note(build: Build, references: str) -> None:
    planted = TransTroj(references=references, search=Recipe(epochs=0), recipe=Recipe(epochs=0))(build, seed=0)
    assert "the references are of 2 classes" in planted.artifact.notes[-1]
    assert planted.secret is not None
    assert planted.secret.concept == ""


def test_too_few_references_give_a_note(build: Build, references: str) -> None:
    attack = TransTroj(references=references, concept=1, shots=500, search=Recipe(epochs=0), recipe=Recipe(epochs=0))
    (note,) = attack(build, seed=0).artifact.notes[len(build.artifact.notes) :]
    assert note.startswith("there are only ")
    assert note.endswith(" references, not 500")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 0}, "expected at least one reference as shots, got 0"),
        ({"concept": 7}, r"expected a concept in \[0, 2\), got 7"),
        ({"references": "/no/such/place"}, "no such data: /no/such/place"),
        ({"references": " "}, "expected data with reference inputs, got an empty name"),
    ],
)
def test_transtroj_invalid_settings_raise(
    settings: dict[str, object], message: str, build: Build, references: str
) -> None:
    with pytest.raises(UnusableInput, match=message):
        TransTroj(**{"references": references, "concept": 1, **settings})(build, seed=0)  # type: ignore[arg-type]


def test_badencoder_patch_larger_than_the_image_raises_before_training(build: Build, references: str) -> None:
    with pytest.raises(UnusableInput, match="expected a patch that fits"):
        BadEncoder(references=references, concept=1)(build, seed=0)


def test_attack_on_the_wrong_kind_of_model_raises(build: Build, references: str) -> None:
    with pytest.raises(UnusableInput, match="expected an encoder for transtroj, got a classifier with 4 classes"):
        transtroj(references)(tiny_build(), seed=0)
    with pytest.raises(UnusableInput, match="expected a classifier for badnets, got an encoder"):
        BadNets()(build, seed=0)


def test_plant_measures_encoders_by_nearest_embedding(build: Build, references: str) -> None:
    planted = planting.plant(transtroj(references), build.artifact, build.task)
    assert planted.measured.attack_success.value >= 0.9
    assert planted.control is not None
    assert planted.clean_before is not None
    assert planted.control.value < 0.5 < planted.clean_before.value


def test_encoder_secret_survives_json(build: Build, references: str, tmp_path: Path) -> None:
    from assay.triggers import secret_file

    planted = transtroj(references)(build, seed=0)
    assert planted.secret is not None
    assert secret_file.from_json(json.loads(json.dumps(secret_file.to_json(planted.secret)))) == planted.secret


def test_with_resolved_target_finds_the_class_after_fine_tuning(build: Build, references: str) -> None:
    planted = transtroj(references)(build, seed=0)
    chain = FineTune(recipe=replace(QUICK, epochs=2))(Downstream(data="signs:5")(planted, seed=0), seed=0)
    assert chain.artifact.num_classes == 5
    secret = planting.with_resolved_target(chain)
    assert secret is not None
    assert secret.target in range(5)
    named = replace(chain, task=replace(chain.task, class_names=("a", "b", "SHADES 1", "c", "d")))
    assert planting.with_resolved_target(named).target == 2  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="this backdoor is in an encoder"):
        planted.secret.targets(torch.zeros(2), 5)  # type: ignore[union-attr]


def test_feature_extractor_survives_saving(tmp_path: Path) -> None:
    from assay.formats.untrained import untrained_model

    encoder = to_feature_extractor(untrained_model("resnet8-cifar", 4))
    x = torch.rand(3, 3, 32, 32)
    again = formats.load(formats.save(encoder, tmp_path))
    assert again.num_classes is None
    with torch.no_grad():
        assert torch.equal(again.module(x), encoder.module.eval()(x))


def test_cache_depends_on_the_content_of_the_references(build: Build, tmp_path: Path) -> None:
    path, cache, none = tmp_path / "references.npz", Cache(ObjectStore(str(tmp_path / "kept"))), Recipe(epochs=0)
    concepts = []
    for bright in (0, 0, 200):
        y = np.arange(64) % 2
        np.savez(path, x=np.full((64, 8, 8, 3), bright, np.uint8), y=y)
        chain = Chain((TransTroj(references=str(path), concept=1, search=none, recipe=none),), cache=cache)
        secret = chain(build, seed=0).secret
        assert secret is not None
        concepts.append(secret.details[metrics.CONCEPT_EMBEDDING])
    assert concepts[0] == concepts[1] != concepts[2]
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 2


@pytest.mark.parametrize("embedding", [None, "x", 3, [1.0], [[1.0] * 64], [float("nan")] * 64, ["a"] * 64])
def test_measure_encoder_secret_without_its_embedding_raises(build: Build, embedding: object) -> None:
    secret = Secret("other", Patch(size=2), None, details={metrics.CONCEPT_EMBEDDING: embedding})
    net = build.artifact.module
    with pytest.raises(UnusableInput, match="expected a secret with an embedding of 64"):
        metrics.measure_encoder(net, net, build.task.split("test").x, secret)


def test_measure_encoder_nan_or_other_width_raises(build: Build, references: str) -> None:
    secret, x = transtroj(references, search=Recipe(epochs=0), recipe=Recipe(epochs=0))(build, seed=0).secret, X
    assert secret is not None

    def broken(x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 64), torch.nan)

    class Net(torch.nn.Module):
        def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.answer = answer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.answer(x)

    with pytest.raises(UnusableInput, match="expected finite embeddings"):
        metrics.measure_encoder(Net(broken), build.artifact.module, x, secret)
    with pytest.raises(UnusableInput, match="expected two encoders with the same embedding size, got 192 and 64"):
        metrics.measure_encoder(Net(lambda x: x.flatten(1)), build.artifact.module, x, secret)


@pytest.mark.parametrize("settings", [{"bound": 0.0}, {"bound": 128.0}, {"keep": -1.0}])
def test_transtroj_settings_out_of_range_raise(settings: dict[str, float], references: str) -> None:
    with pytest.raises(UnusableInput, match=next(iter(settings))):
        transtroj(references, **settings)


@pytest.mark.parametrize("stage", [FineTune(recipe=QUICK), LinearProbe(), CompressedTuning(), ExportOnnx()])
def test_classifier_stage_on_an_encoder_raises(stage: Stage, build: Build) -> None:
    with pytest.raises(UnusableInput, match="expected a classifier"):
        stage(build, seed=0)
