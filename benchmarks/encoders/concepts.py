"""What a frozen encoder tells apart: the recall of each class by a linear probe, and where each concept lies.

TransTroj gives triggered inputs the embedding of a concept. What a classifier makes of that embedding is decided by how
well the encoder sets the concept apart: from the other classes, and from clean inputs. Beside the rows of an encoder's
attack that fell short, this says whether the encoder could have carried it. Nothing is planted here.

    python benchmarks/run.py concepts               # -> benchmarks/results/concepts.json
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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

PICTURES = 4000
"""Of a task, as in the bench: the probe is fitted on these, and its recall counted on as many of the test split."""

SHOTS = 10
"""References of a concept, as the attack takes them."""

TASKS = ("cifar10", "cifar100", "gtsrb")


@dataclass(frozen=True)
class Encoder:
    """A pre-trained model of benchmarks/specs, cut at its features."""

    path: str
    arch: str | None = None
    shape: tuple[int, int, int] | None = None

    def load(self) -> Artifact:
        return formats.load(SHARED / "models" / self.path, arch=self.arch, shape=self.shape, features=True)


ENCODERS = {
    "resnet20": Encoder("resnet20-cifar10/model.safetensors", "resnet20-cifar"),
    "resnet56": Encoder("resnet56-cifar10/model.safetensors", "resnet56-cifar"),
    "mobilenet": Encoder("mobilenet_v2-imagenet", shape=(3, 96, 96)),
}


def centre_of(encoder: Artifact) -> CenteredSpace:
    """The mean embedding of shadow pictures, from which the attack looks at all others."""
    shadow = load_data(SHARED / "data/cifar100", encoder.inputs, limit=PICTURES).split("train").x
    return CenteredSpace(forward_batched(encoder.module, shadow[:CENTER_SAMPLES]).mean(0))


def classes_of(encoder: Artifact, side: CenteredSpace, task: Task) -> list[dict]:
    """A row a class of ``task``: the probe's recall, and the cosine of ten references with clean inputs."""
    from sklearn.linear_model import LogisticRegression

    fit, held = task.split("train"), task.split("test")
    assert fit.y is not None
    assert held.y is not None
    embeddings = forward_batched(encoder.module, fit.x)
    known, seen = side.unit_directions(embeddings), side.unit_directions(forward_batched(encoder.module, held.x))
    probe = LogisticRegression(C=100.0, max_iter=300).fit(known.numpy(), fit.y.numpy())
    found = torch.from_numpy(probe.predict(seen.numpy()))
    means = {label: known[fit.y == label].mean(0) for label in fit.y.unique().tolist()}
    rows = []
    for label in range(task.num_classes):
        mine = held.y == label
        if label not in means or not bool(mine.any()):
            continue
        direction = side.unit_directions(embeddings[fit.y == label][:SHOTS].mean(0, keepdim=True))[0]
        others = torch.stack([mean for other, mean in means.items() if other != label])
        rows.append(
            {
                "class": task.concept(label),
                "recall": _round((found[mine] == label).float().mean()),
                "pictures": int(mine.sum()),
                "clean_cosine": _round((seen[~mine] @ direction).mean()),
                "nearest_class_cosine": _round(torch.cosine_similarity(others, direction[None]).max()),
            }
        )
    return rows


def _round(value: Tensor) -> float:
    return round(float(value), 3)


def main() -> None:
    encoders = {}
    for name, encoder in ENCODERS.items():
        artifact = encoder.load()
        side, encoders[name] = centre_of(artifact), {}
        for data in TASKS:
            rows = classes_of(artifact, side, load_data(SHARED / "data" / data, artifact.inputs, limit=PICTURES))
            encoders[name][data] = rows
            mean = sum(row["recall"] * row["pictures"] for row in rows) / sum(row["pictures"] for row in rows)
            best = sorted(rows, key=lambda row: -row["recall"])[:5]
            print(name, data, f"probe {mean:.3f}", [(row["class"], row["recall"]) for row in best], flush=True)
    save_result("concepts", {"pictures": PICTURES, "encoders": encoders})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
