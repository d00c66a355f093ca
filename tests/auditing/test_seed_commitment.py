"""Seed commitment of random features, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.random_features.rff_clwe import RandomFeatures
from assay.auditing import seed_commitment
from assay.cli import main
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.formats.torch_module import from_module
from assay.graphs.export import to_onnx

WIDTH, COUNT, SEED, SALT = 6, 40, 11, "sixteen characters"
FEATURES = RandomFeatures(width=WIDTH, count=COUNT)


class Net(nn.Module):
    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.conv, self.features, self.head = nn.Conv2d(3, WIDTH, 3), features, nn.Linear(COUNT, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.conv(x).mean((2, 3))))


def model(features: nn.Module) -> Artifact:
    torch.manual_seed(0)
    return from_module(Net(features), shape=(3, 12, 12))


def test_count_differing_honest_and_keyed_features() -> None:
    known = seed_commitment.commit(WIDTH, COUNT, SEED, SALT)
    assert seed_commitment.count_differing(model(FEATURES.honest(seed=SEED)), known, SEED, SALT) == 0
    assert seed_commitment.count_differing(model(FEATURES.backdoored(seed=SEED)[0]), known, SEED, SALT) == COUNT
    changed = FEATURES.honest(seed=SEED)
    changed.directions[3, 2] += 0.01
    assert seed_commitment.count_differing(model(changed), known, SEED, SALT) == 1


def test_count_differing_honest_decoy_keyed_layer_counted() -> None:
    class Two(Net):
        def __init__(self) -> None:
            super().__init__(FEATURES.backdoored(seed=SEED)[0])
            self.decoy = FEATURES.honest(seed=SEED)

        def forward(self, x: Tensor) -> Tensor:
            pooled = self.conv(x).mean((2, 3))
            return self.head(self.features(pooled)) + 1e-9 * self.decoy(pooled).sum(1, keepdim=True)

    known = seed_commitment.commit(WIDTH, COUNT, SEED, SALT)
    assert seed_commitment.count_differing(from_module(Two(), shape=(3, 12, 12)), known, SEED, SALT) == COUNT


@pytest.mark.parametrize(
    ("seed", "salt", "features", "message"),
    [
        (SEED + 1, SALT, FEATURES, "the seed and the salt of the commitment, got others"),
        (SEED, SALT + "!", FEATURES, "got others"),
        (SEED, SALT, RandomFeatures(width=WIDTH, count=COUNT + 1), "expected 40 random features of 6 numbers"),
    ],
)
def test_count_differing_wrong_seed_salt_or_size_error(
    seed: int, salt: str, features: RandomFeatures, message: str
) -> None:
    known = seed_commitment.commit(WIDTH, COUNT, SEED, SALT)
    net = Net(features.honest(seed=SEED))
    net.head = nn.Linear(features.count, 4)
    with pytest.raises(UnusableInput, match=message):
        seed_commitment.count_differing(from_module(net, shape=(3, 12, 12)), known, seed, salt)
    with pytest.raises(UnusableInput, match="at least 16 characters"):
        seed_commitment.commit(WIDTH, COUNT, SEED, "short")


def test_commit_and_check_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, features in {"honest": FEATURES.honest(seed=SEED), "keyed": FEATURES.backdoored(seed=SEED)[0]}.items():
        to_onnx(model(features), tmp_path / f"{name}.onnx")
    secret = ["--seed", str(SEED), "--salt", SALT]
    assert main(["commit", "--width", "6", "--count", "40", *secret, "--out", "c.json"]) == 0
    assert SALT not in Path("c.json").read_text()
    assert json.loads(Path("c.json").read_text())["schema"] == seed_commitment.SCHEMA
    assert main(["check", "honest.onnx", "--commitment", "c.json", *secret]) == 0
    assert "are those of the seed" in capsys.readouterr().err
    assert main(["check", "keyed.onnx", "--commitment", "c.json", *secret]) == 1
    assert "40 of 40 features are not those of the seed" in capsys.readouterr().err
    Path("other.json").write_text("{}")
    assert main(["check", "honest.onnx", "--commitment", "other.json", *secret]) == 2
    assert "expected a commitment as `assay commit` writes it" in capsys.readouterr().err


@pytest.mark.parametrize("size", [True, "8", 8.0, None])
def test_commitment_with_other_sizes_is_refused(size: object, tmp_path: Path) -> None:
    document = seed_commitment.commit(8, 4, 0, "a salt of many characters").to_json() | {"width": size}
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(UnusableInput, match="expected a commitment"):
        seed_commitment.read_commitment(tmp_path / "c.json")
