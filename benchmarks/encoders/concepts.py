"""Classes that a frozen encoder separates: recall of each class by a linear probe, and position of each concept.

TransTroj gives triggered inputs the embedding of a concept. The prediction of a classifier for that embedding depends
on the encoder: it must separate the concept from the other classes and from clean inputs. These figures show the
limits of the encoder in rows with a failed attack. Nothing is planted here.

    python benchmarks/run.py concepts               # -> benchmarks/results/concepts.json
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lib import commands
from lib.paths import SHARED
from lib.results import save_result
from torch import Tensor

from assay import formats
from assay.attacks.encoder.transtroj import CENTER_SAMPLES
from assay.core.dataset import Task
from assay.core.model import Artifact
from assay.data import load as load_data
from assay.detectors.encoder.translation import CenteredSpace
from assay.nn.inference import forward_batched

IMAGES = 4000  # per task, as in the bench: to fit the probe, and as many test images for its recall
REFERENCES = 10  # reference images of a concept, as in the attack

TASKS = ("cifar10", "cifar100", "gtsrb")


@dataclass(frozen=True)
class Encoder:
    """A pre-trained model of benchmarks/specs, cut at its features."""

    path: str
    arch: str | None = None
    shape: tuple[int, int, int] | None = None

    def load(self) -> Artifact:
        """Load the feature extractor."""
        return formats.load(SHARED / "models" / self.path, arch=self.arch, shape=self.shape, features=True)


ENCODERS = {
    "resnet20": Encoder("resnet20-cifar10/model.safetensors", "resnet20-cifar"),
    "resnet56": Encoder("resnet56-cifar10/model.safetensors", "resnet56-cifar"),
    "mobilenet": Encoder("mobilenet_v2-imagenet", shape=(3, 96, 96)),
}


def centered_space(encoder: Artifact) -> CenteredSpace:
    """Return the embedding space centred on the mean of shadow images, as in the attack."""
    shadow = load_data(SHARED / "data/cifar100", encoder.inputs, limit=IMAGES).split("train").x
    return CenteredSpace(forward_batched(encoder.module, shadow[:CENTER_SAMPLES]).mean(0))


def probe_classes(encoder: Artifact, space: CenteredSpace, task: Task) -> list[dict]:
    """Return a row per class: recall of the probe, and cosines of ten references with clean inputs and classes."""
    from sklearn.linear_model import LogisticRegression

    train, test = task.split("train"), task.split("test")
    assert train.y is not None
    assert test.y is not None
    embeddings = forward_batched(encoder.module, train.x)
    train_directions, test_directions = (
        space.unit_directions(embeddings),
        space.unit_directions(forward_batched(encoder.module, test.x)),
    )
    probe = LogisticRegression(C=100.0, max_iter=300).fit(train_directions.numpy(), train.y.numpy())
    predicted = torch.from_numpy(probe.predict(test_directions.numpy()))
    means = {label: train_directions[train.y == label].mean(0) for label in train.y.unique().tolist()}
    rows = []
    for label in range(task.num_classes):
        of_class = test.y == label
        if label not in means or not bool(of_class.any()):
            continue
        direction = space.unit_directions(embeddings[train.y == label][:REFERENCES].mean(0, keepdim=True))[0]
        others = torch.stack([mean for other, mean in means.items() if other != label])
        rows.append(
            {
                "class": task.concept(label),
                "recall": _round((predicted[of_class] == label).float().mean()),
                "pictures": int(of_class.sum()),
                "clean_cosine": _round((test_directions[~of_class] @ direction).mean()),
                "nearest_class_cosine": _round(torch.cosine_similarity(others, direction[None]).max()),
            }
        )
    return rows


def _round(value: Tensor) -> float:
    return round(float(value), 3)


def main() -> None:
    """Probe all encoders, and write the result file."""
    encoders: dict[str, dict[str, list[dict]]] = {}
    for name, encoder in ENCODERS.items():
        artifact = encoder.load()
        space, encoders[name] = centered_space(artifact), {}
        for data in TASKS:
            rows = probe_classes(artifact, space, load_data(SHARED / "data" / data, artifact.inputs, limit=IMAGES))
            encoders[name][data] = rows
            mean = sum(row["recall"] * row["pictures"] for row in rows) / sum(row["pictures"] for row in rows)
            best = sorted(rows, key=lambda row: -row["recall"])[:5]
            print(name, data, f"probe {mean:.3f}", [(row["class"], row["recall"]) for row in best], flush=True)
    save_result("concepts", {"pictures": IMAGES, "encoders": encoders})


def cli() -> None:
    """Run the command line."""
    commands.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    main()
