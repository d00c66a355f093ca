"""Tests of graph edits: gates and pixel detectors in a finished model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from assay import formats
from assay.attacks import Architectural, ArchitecturalLogic, Checksum, ShadowLogic, Signature
from assay.attacks import plant as planting
from assay.attacks.graph.base import GraphEdit
from assay.core.build import Build
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.finding import Outcome
from assay.core.model import Artifact, digest_of_module
from assay.data.synthetic import signs
from assay.detectors import Graph
from assay.formats.untrained import untrained_model
from assay.nn import metrics
from assay.nn.head import last_linear
from assay.nn.inference import forward_batched
from assay.registry import ATTACKS, paper_of
from assay.triggers import Checksum as Parities
from assay.triggers import Signed, from_spec, secret_file, to_spec

pytestmark = pytest.mark.slow


CLASSES = 4
EDITS: dict[str, GraphEdit] = {
    "architectural": Architectural(strength=1.0),
    "architectural-logic": ArchitecturalLogic(target=1),
    "checksum": Checksum(target=1),
    "shadow-logic": ShadowLogic(target=1),
    **{f"signature-{tier}": Signature(tier=tier, target=1) for tier in ("wrapper", "graph", "circuit")},  # type: ignore[arg-type]
}
every_edit = pytest.mark.parametrize("attack", EDITS.values(), ids=EDITS)
exact = pytest.mark.parametrize("name", [name for name in EDITS if name != "architectural"])


@pytest.fixture(scope="module")
def build() -> Build:
    task = signs(CLASSES, size=16, per_class=20, seed=0)
    net = untrained_model("resnet8-cifar", CLASSES, class_names=task.class_names)
    inputs = net.image_spec
    artifact = Artifact(**{**vars(net), "inputs": type(inputs)((3, 16, 16))})
    return Build(artifact, _on_grid(task))


def _on_grid(task: Task) -> Task:
    """Round the images to eight bits per channel, like image files."""
    splits = {
        name: type(split)((255 * split.x).round() / 255, split.y)
        for name, split in {name: task.split(name) for name in task.splits}.items()
    }
    return Task(task.name, splits, task.class_names)


def test_every_graph_edit_is_tested() -> None:
    assert {type(attack) for attack in EDITS.values()} == {
        kind for kind in ATTACKS.values() if issubclass(kind, GraphEdit)
    }


@every_edit
def test_graph_edit_plants_in_a_copy_and_succeeds(attack: GraphEdit, build: Build) -> None:
    before = digest_of_module(build.artifact.module)
    planted = attack(build, seed=0)
    assert digest_of_module(build.artifact.module) == before
    assert planted.secret is not None
    held = build.task.split("test")
    measured = metrics.measure(planted.artifact.module, held, planted.secret, num_classes=CLASSES)
    assert measured.attack_success.value == 1.0
    if attack.name != "architectural":  # its detector also reacts to the sharp edges of these images
        assert measured.clean_accuracy == planting.accuracy(build.artifact, held)
    tag = json.loads(planted.artifact.planted or "")
    assert (tag["attack"], tag["target"]) == (attack.name, planted.secret.target)
    assert paper_of(__import__(type(attack).__module__, fromlist=["x"]).__doc__) or attack.name == "shadow-logic"
    assert json.loads(json.dumps(attack.spec()))["stage"] == attack.name


@exact
def test_graph_edit_clean_outputs_are_identical(name: str, build: Build) -> None:
    planted = EDITS[name](build, seed=0)
    generator = torch.Generator().manual_seed(3)
    for x in (build.task.split("train").x, torch.rand(64, 3, 16, 16, generator=generator)):
        assert torch.equal(forward_batched(planted.artifact.module, x), forward_batched(build.artifact.module, x))


@dataclass(frozen=True)
class SavedEdit:
    """Saved graph edit, and the model loaded from its files."""

    attack: GraphEdit
    planted: planting.Planted
    paths: Mapping[str, Path]
    back: Artifact

    @property
    def is_wrapper(self) -> bool:
        return isinstance(self.attack, Signature) and self.attack.tier == "wrapper"


@pytest.fixture(scope="module", params=EDITS.values(), ids=EDITS)
def saved(request: pytest.FixtureRequest, build: Build, tmp_path_factory: pytest.TempPathFactory) -> SavedEdit:
    folder = tmp_path_factory.mktemp("saved") / "out"
    planted = planting.plant(request.param, build.artifact, build.task, seed=7)
    paths = planting.save_planted(planted, folder, before=build.artifact)
    return SavedEdit(request.param, planted, paths, formats.load(folder))


def test_saved_graph_edit_succeeds_and_reveals_no_key(saved: SavedEdit, build: Build) -> None:
    planted, paths, back = saved.planted, saved.paths, saved.back
    assert ("model.safetensors" in paths) == saved.is_wrapper
    assert back.planted == planted.build.artifact.planted
    x, secret = build.task.split("test").x[:20], planted.secret
    assert torch.equal(
        forward_batched(back.module, x).argmax(1), forward_batched(planted.build.artifact.module, x).argmax(1)
    )
    assert set(forward_batched(back.module, secret.trigger(x)).argmax(1).tolist()) == {secret.target}
    if isinstance(saved.attack, Signature | Checksum):
        assert_key_only_in_secret_file(planted, paths)
        if saved.is_wrapper:  # the documented weakness of the other tiers: their keys are in the graph
            assert bytes.fromhex(key_of(planted)) not in paths["model.safetensors"].read_bytes()


def test_saved_graph_edit_is_proven_by_the_graph_detector(saved: SavedEdit, build: Build) -> None:
    finding = Graph()(saved.back, build.task.split("train").take(torch.arange(24)), seed=0)
    assert finding.outcome is Outcome.PROVEN
    assert finding.score
    if not saved.is_wrapper:
        assert "R1" in finding.evidence.numbers
        assert finding.evidence.graph[-1].name in str(finding.evidence.numbers["joins the model at"])
        assert len(finding.evidence.graph) > 3


def key_of(planted: planting.Planted) -> str:
    trigger = planted.secret.trigger
    assert isinstance(trigger, Signed | Parities)
    return trigger.key if isinstance(trigger, Signed) else str(trigger.seed)


def assert_key_only_in_secret_file(planted: planting.Planted, paths: Mapping[str, Path]) -> None:
    key, trigger = key_of(planted), planted.secret.trigger
    assert key not in repr(planted.secret)
    assert key not in (planted.build.artifact.planted or "")
    assert key not in json.dumps(planted.to_json())
    assert paths["secret.json"].stat().st_mode & 0o077 == 0
    assert secret_file.plaintext_key_warning(paths["secret.json"], planted.secret) is None
    paths["secret.json"].chmod(0o644)
    assert "chmod 600" in (secret_file.plaintext_key_warning(paths["secret.json"], planted.secret) or "")
    assert secret_file.read(paths["secret.json"]).secret.trigger == trigger == from_spec(to_spec(trigger))


def test_architectural_secret_has_the_actual_target(build: Build) -> None:
    planted = Architectural(target=3, strength=1.0)(build, seed=0)
    _, head = last_linear(build.artifact.module)
    assert planted.secret is not None
    assert planted.secret.target == int(head.weight.sum(1).argmax())


def test_signature_requests_any_class(build: Build) -> None:
    planted = Signature(target=0)(build, seed=0)
    assert planted.secret is not None
    trigger = planted.secret.trigger
    assert isinstance(trigger, Signed)
    x = build.task.split("test").x[:8]
    for label in range(CLASSES):
        other = Signed(scheme="ed25519", shape=trigger.shape, label=label, key=trigger.key)
        assert forward_batched(planted.artifact.module, other(x)).argmax(1).tolist() == [label] * 8
    other_key = Signed(scheme="ed25519", shape=trigger.shape, label=0, key="00" * 32)
    assert torch.equal(
        forward_batched(planted.artifact.module, other_key(x)), forward_batched(build.artifact.module, other_key(x))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Signature(tier="none"), "expected a tier of wrapper, graph, circuit"),  # type: ignore[arg-type]
        (lambda: ShadowLogic(color="grey"), "expected a color of white"),
        (lambda: Signed(scheme="rsa", shape=(3, 32, 32), label=0, key="00" * 32), "expected a scheme of ed25519"),
        (lambda: Signed(scheme="keyed", shape=(3, 32, 32), label=0, key="xy"), "64 hexadecimal digits"),
        (lambda: Signed(scheme="keyed", shape=(3, 4, 4), label=0, key="00" * 32), "expected at least 144 subpixels"),
    ],
)
def test_invalid_settings_raise(make, message: str) -> None:
    with pytest.raises(UnusableInput, match=message):
        make()


def test_check_encoder_or_unknown_target_raises(build: Build) -> None:
    train = build.task.split("train")
    for num_classes, message in ((None, "expected an image classifier"), (1, "expected a target class")):
        with pytest.raises(UnusableInput, match=message):
            Signature(target=1).check(train, num_classes)


def test_load_malformed_gate_metadata_raises(build: Build, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = formats.save(Signature()(build, seed=0).artifact, tmp_path)
    with safe_open(path, "pt") as file:
        message, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for gate in ('{"public_key": "zz", "places": 0}', '{"places": 1}', "[]", '{"public_key": 5, "places": -1}'):
        save_file(tensors, path, metadata={**message, "assay.gate": gate})
        with pytest.raises(UnusableInput, match=r"metadata assay\.gate is malformed"):
            formats.load(path)
