"""Seed commitment: proof of honest random features.

No test of the features can prove them honest (Goldwasser, Kim, Vaikuntanathan, Zamir: Planting Undetectable Backdoors
in Machine Learning Models, 2022, arXiv 2204.06974). A seed proves it, if the trainer fixed the seed before a search for
a good one was possible. The trainer publishes a commitment before the training, and opens it with the seed on delivery
of the model. Everyone can then generate the features again and compare.
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
MAX_ERROR = 1e-4  # of a feature's value; files in float32 keep six digits
MIN_SALT_LENGTH = 16  # characters; a shorter salt would allow a search for the seed


@dataclass(frozen=True)
class Commitment:
    """Published commitment: size of the features, and the hash of the seed and a salt."""

    width: int  # numbers in a feature
    count: int  # features
    digest: str

    def to_json(self) -> dict[str, object]:
        """Return the commitment in plain JSON types."""
        return {"schema": SCHEMA, **asdict(self)}


def commit(width: int, count: int, seed: int, salt: str) -> Commitment:
    """Return the commitment to a seed. Keep seed and salt to open it later.

    Args:
        width: Number of values in a feature.
        count: Number of features.
        seed: Seed of the features.
        salt: Secret text of at least ``MIN_SALT_LENGTH`` characters.

    Raises:
        UnusableInput: The salt is too short, or the sizes are not positive.
    """
    RandomFeatures(width=width, count=count)  # checks the sizes
    if len(salt) < MIN_SALT_LENGTH:
        raise UnusableInput(
            f"expected a salt of at least {MIN_SALT_LENGTH} characters, got {len(salt)}. Fix: give a longer one, "
            "or the seed can be guessed."
        )
    return Commitment(width, count, _digest(width, count, seed, salt))


def read_commitment(path: Path) -> Commitment:
    """Read a published commitment; raise UnusableInput for any other file."""
    try:
        document: Mapping[str, object] = read_json(path)
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from None
    width, count, digest = (document.get(name) for name in ("width", "count", "digest"))
    if document.get("schema") != SCHEMA or type(width) is not int or type(count) is not int or type(digest) is not str:
        raise UnusableInput(f"{path}: expected a commitment as `assay commit` writes it ({SCHEMA}), got another file")
    return Commitment(width, count, digest)


def count_differing(artifact: Artifact, commitment: Commitment, seed: int, salt: str) -> int:
    """Return the number of a model's features without a match in the committed seed; 0 for an honest model.

    Args:
        artifact: The model with the features.
        commitment: Published before the training.
        seed: Opened.
        salt: Opened.

    Raises:
        UnusableInput: Seed and salt are not those of the commitment, or the model has no such features.
    """
    width, count = commitment.width, commitment.count
    if _digest(width, count, seed, salt) != commitment.digest:
        raise UnusableInput("expected the seed and the salt of the commitment, got others")
    graph = read_graph(artifact.module, artifact.inputs.blank(2))
    if isinstance(graph, UnreadableGraph):
        raise UnusableInput(f"the graph cannot be read: {graph.reason}")
    layers = [layer.directions for layer in random_feature_layers(graph.graph)]
    if not layers or any(directions.shape != (count, width) for directions in layers):
        found = ", ".join(f"{d.shape[0]} of {d.shape[1]} numbers" for d in layers) or "none"
        raise UnusableInput(
            f"expected {count} random features of {width} numbers in the model, and no others, got {found}"
        )
    expected = RandomFeatures(width=width, count=count).honest(seed=seed).directions.double().numpy()
    return max(int((np.abs(directions - expected).max(1) > MAX_ERROR).sum()) for directions in layers)


def _digest(width: int, count: int, seed: int, salt: str) -> str:
    return hashlib.sha256(json.dumps([SCHEMA, width, count, seed, salt]).encode()).hexdigest()
