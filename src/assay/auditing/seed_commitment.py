"""Seed commitment: random features that whoever ships a model can prove to be honest.

No test of the features can (Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors in Machine Learning
Models, 2022, arXiv 2204.06974); their seed can, if it was fixed before anybody could look for a good one. A commitment
is published before the training, and opened with the seed when the model is handed over: then everybody makes the
features anew and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from assay.attacks.random_features.rff_clwe import RandomFeatures
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.detectors.graph.read import UnreadableGraph, read_graph
from assay.detectors.weights.random_feature_key import random_feature_layers
from assay.io.files import read_json

SCHEMA = "assay.commitment/1"
CLOSE = 1e-4
"""How far a feature may be off what its seed gives: files in float32 keep six digits."""


@dataclass(frozen=True)
class Commitment:
    """What is published: how many features of how many numbers, and the hash of the seed and a salt."""

    width: int
    count: int
    digest: str

    def to_json(self) -> dict[str, object]:
        return {"schema": SCHEMA, **asdict(self)}


def commit(width: int, count: int, seed: int, salt: str) -> Commitment:
    """``salt``: of at least 16 characters, or the seed can be found by trying; both are kept to open it with."""
    RandomFeatures(width=width, count=count)  # says what is wrong with them
    if len(salt) < 16:
        raise UnusableInput(f"expected a salt of at least 16 characters, or the seed can be guessed; came {len(salt)}")
    return Commitment(width, count, _digest(width, count, seed, salt))


def read(path: Path) -> Commitment:
    """Raises UnusableInput for what is no commitment."""
    try:
        document: Mapping[str, object] = read_json(path)
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from None
    width, count, digest = (document.get(name) for name in ("width", "count", "digest"))
    sound = isinstance(width, int) and isinstance(count, int) and isinstance(digest, str)
    if document.get("schema") != SCHEMA or not sound:
        raise UnusableInput(f"{path}: expected a commitment as `assay commit` writes it ({SCHEMA})")
    return Commitment(int(str(width)), int(str(count)), str(digest))


def differing(artifact: Artifact, known: Commitment, seed: int, salt: str) -> int:
    """How many of a model's random features are not those of the seed that was committed to; 0 for an honest one.

    Raises UnusableInput where the seed is another, and where the model has no such features.
    """
    if _digest(known.width, known.count, seed, salt) != known.digest:
        raise UnusableInput("expected the seed and the salt of the commitment; these are others")
    read_as = read_graph(artifact.module, artifact.inputs.blank(2))
    if isinstance(read_as, UnreadableGraph):
        raise UnusableInput(f"the graph cannot be read: {read_as.reason}")
    layers = [layer.directions for layer in random_feature_layers(read_as.graph)]
    if not layers or any(found.shape != (known.count, known.width) for found in layers):
        came = ", ".join(f"{found.shape[0]} of {found.shape[1]} numbers" for found in layers) or "none"
        raise UnusableInput(
            f"expected {known.count} random features of {known.width} numbers in the model, and no others; came {came}"
        )
    wanted = RandomFeatures(width=known.width, count=known.count).honest(seed=seed).directions.double().numpy()
    return max(int((np.abs(found - wanted).max(1) > CLOSE).sum()) for found in layers)


def _digest(width: int, count: int, seed: int, salt: str) -> str:
    return hashlib.sha256(json.dumps([SCHEMA, width, count, seed, salt]).encode()).hexdigest()
