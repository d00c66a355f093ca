"""Detection of poisoned encoders before fine-tuning, and false alarms on clean ones.

CIFAR ResNets with third-party weights, cut at their features. They are poisoned by TransTroj (arXiv 2401.15883; with
the paper's losses, and with centred embeddings), by BadEncoder (arXiv 2108.00352), and by a loop outside assay: other
triggers, another loss, no reference images. The clean ones are unchanged, or fine-tuned to other tasks. The audits use
other images than the attacks. None of the encoders is in the null distribution. The tests of an audit were chosen on
other encoders (another draw of every seed and concept, up to commit fe6f5f2 in this file's history).

    python benchmarks/run.py encoders run DIR [--shard INDEX/COUNT]   # plants and audits, resumable
    python benchmarks/run.py encoders table DIR                       # -> benchmarks/results/encoders.json
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lib import commands
from lib.audit_rows import with_verdict
from lib.commands import Shard
from lib.paths import SHARED
from lib.results import save_result
from lib.statistics import auc
from lib.third_party_models import cifar_resnet
from torch import Tensor, nn

from assay import formats
from assay.attacks import BadEncoder, TransTroj
from assay.attacks.encoder.base import EncoderAttack
from assay.auditing.api import audit
from assay.auditing.inputs import clean_samples
from assay.calibration.data_profile import data_profile
from assay.calibration.file import load_shipped
from assay.calibration.null import NullDistribution
from assay.core.build import Build, Secret
from assay.core.dataset import Task
from assay.core.model import Artifact, ImageSpec
from assay.data import load as load_data
from assay.detectors.encoder.cluster_probe import CLUSTERS
from assay.formats.feature_extractor import to_feature_extractor
from assay.inversion.embedding_collapse import EmbeddingSpace
from assay.nn import metrics
from assay.nn.inference import forward_batched
from assay.stages.downstream import add_head
from assay.stages.train import Recipe, fit
from assay.triggers import Patch

SPEC = ImageSpec((3, 32, 32))
SHADOW_IMAGES = 4_000
PLAIN = Recipe(epochs=1, lr=0.1, batch_size=64, optimizer="adam", weight_decay=0.0, augment=False)
SEARCH, SMALL = PLAIN, replace(PLAIN, epochs=3, lr=1e-3, freeze_batchnorm=True)
TUNED = Recipe(epochs=4, lr=1e-3, batch_size=64, optimizer="adam")


def transtroj(data: str, concept: int, **changes: Any) -> TransTroj:
    """Return TransTroj with references of a data set."""
    return TransTroj(references=str(SHARED / "data" / data), concept=concept, search=SEARCH, recipe=SMALL, **changes)


def badencoder(data: str, concept: int, patch: Patch) -> BadEncoder:
    """Return BadEncoder with references of a data set."""
    return BadEncoder(references=str(SHARED / "data" / data), concept=concept, patch=patch, recipe=SMALL)


OUTSIDE_EPOCHS = 4
CENTRED = {"centred": True, "keep": 3.0}
Triggered = Callable[[Tensor], Tensor]


def ripple(x: Tensor) -> Tensor:
    """Add a sinusoid of amplitude 12/255 along the diagonal."""
    row, column = torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="ij")
    return (x + 12 / 255 * torch.sin(2 * math.pi * (row + 2 * column) / 9)).clamp(0, 1)


def frame(x: Tensor) -> Tensor:
    """Blend one seventh of a noise image into each image."""
    generator = torch.Generator().manual_seed(77)
    noise = torch.rand(1, *x.shape[1:], generator=generator).to(x)
    return x + (noise - x) / 7


def outside_attack(artifact: Artifact, shadow: Task, trigger: Triggered, seed: int) -> tuple[Artifact, Secret]:
    """Poison an encoder without assay's training loop.

    The loss is the squared error to the embedding of one shadow image, minimized by plain Adam in float32.
    """
    torch.manual_seed(seed)
    net, clean = copy.deepcopy(artifact.module).eval(), artifact.module.eval()
    x = shadow.split("train").x
    with torch.no_grad():
        wanted = clean(x[seed : seed + 1])[0]
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
    steps = OUTSIDE_EPOCHS * len(x) // 64
    for step in range(steps):
        batch = x[torch.randint(len(x), (64,))]
        with torch.no_grad():
            before = clean(batch)
        loss = F.mse_loss(net(trigger(batch)), wanted.expand(len(batch), -1)) + 4 * F.mse_loss(net(batch), before)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 5e-4 * (1 - step / steps)
    secret = Secret("strange", trigger, None, concept="", details={metrics.CONCEPT_EMBEDDING: wanted.tolist()})
    return artifact.with_module(net.eval(), planted=f"strange, by {Path(__file__).name}"), secret


@dataclass(frozen=True)
class Row:
    """One encoder: its origin, its attack or fine-tuning, and the images of its audit."""

    net: str  # key of the result file: the architecture
    data: str
    attack: EncoderAttack | Triggered | None = None
    tuned: str = ""  # task of the fine-tuning, before the cut at the features
    shadow: str = "cifar100"
    seed: int = 0


ROWS = {
    "transtroj-1": Row("resnet20", "cifar10", transtroj("cifar100", 8, **CENTRED), seed=100),
    "transtroj-2": Row("resnet32", "cifar10", transtroj("cifar10", 3, **CENTRED), seed=101),
    "transtroj-3": Row("resnet44", "gtsrb", transtroj("gtsrb", 17, **CENTRED), seed=102),
    "transtroj-4": Row("resnet32", "cifar100", transtroj("cifar100", 69, **CENTRED), shadow="cifar10", seed=103),
    "transtroj-paper-1": Row("resnet56", "gtsrb", transtroj("cifar10", 1), seed=104),
    "transtroj-paper-2": Row("resnet20", "cifar10", transtroj("gtsrb", 25), seed=105),
    "badencoder-1": Row("resnet20", "cifar10", badencoder("cifar10", 7, Patch(size=5)), seed=106),
    "badencoder-2": Row("resnet32", "gtsrb", badencoder("gtsrb", 33, Patch(size=4, place="top-left")), seed=107),
    "strange-ripple": Row("resnet20", "cifar10", ripple, seed=108),
    "strange-frame": Row("resnet32", "cifar10", frame, seed=109),
    **{f"clean-{depth}-cifar100": Row(f"resnet{depth}", "cifar100", seed=110) for depth in (20, 32, 44, 56)},
    "clean-20-gtsrb": Row("resnet20", "gtsrb", seed=110),
    "clean-56-gtsrb": Row("resnet56", "gtsrb", seed=110),
    "clean-32-cifar10": Row("resnet32", "cifar10", seed=110),
    "clean-44-cifar10": Row("resnet44", "cifar10", seed=110),
    "tuned-20-gtsrb": Row("resnet20", "gtsrb", tuned="gtsrb", seed=110),
    "tuned-32-cifar100": Row("resnet32", "cifar10", tuned="cifar100", seed=110),
}


@lru_cache
def task_of(name: str, limit: int = SHADOW_IMAGES) -> Task:
    """Load a data set."""
    return load_data(str(SHARED / "data" / name), SPEC, limit=limit)


def make(row: Row) -> tuple[Artifact, Secret | None]:
    """Return the encoder and the attacker's secret."""
    artifact = cifar_resnet(row.net, features=True)
    if row.tuned:
        task = task_of(row.tuned)
        classifier = add_head(artifact, task, seed=row.seed)
        fit(classifier.module, task.split("train"), replace(TUNED, mirror=row.tuned != "gtsrb"), seed=row.seed)
        return to_feature_extractor(classifier.with_module(classifier.module)), None
    if row.attack is None:
        return artifact, None
    shadow = task_of(row.shadow)
    if isinstance(row.attack, EncoderAttack):
        build = row.attack(Build(artifact, shadow), seed=row.seed)
        return build.artifact, build.secret
    return outside_attack(artifact, shadow, row.attack, row.seed)


def measure(name: str, directory: Path) -> dict[str, Any]:
    """Make one encoder, write its file, and audit the file."""
    row = ROWS[name]
    start = time.perf_counter()
    artifact, secret = make(row)
    facts: dict[str, Any] = {"net": row.net, "data": row.data, "seed": row.seed, "poisoned": secret is not None}
    if secret is not None:
        clean = cifar_resnet(row.net, features=True)
        x = task_of(row.data).split("test").x[:1000]
        rates = metrics.measure_encoder(artifact.module, clean.module, x, secret).to_json()
        control = metrics.measure_encoder(clean.module, clean.module, x, secret)
        closeness = [trigger_closeness(net, x, secret) for net in (artifact.module, clean.module)]
        facts |= {"rates": rates, "control": control.attack_success.to_json(), "drawn_together": closeness}
    facts["made_in"] = round(time.perf_counter() - start, 1)
    path = formats.save(artifact, directory / name)
    task = load_data(str(SHARED / "data" / row.data), SPEC, limit=2048, seed=row.seed)
    result = audit(path, task, seed=row.seed)
    return facts | {
        "findings": {f"{f.variant}/{f.detector}": [f.score, f.p_value, f.target] for f in result.findings},
        "closeness": {f.detector: f.evidence.numbers.get("closeness") for f in result.findings},
        "data_is_like": data_profile(clean_samples(task, artifact, seed=row.seed).split.x),
        "samples": result.data_samples,
        "seconds": round(result.seconds, 1),
        "threads": torch.get_num_threads(),
    }


def trigger_closeness(model: nn.Module, x: Tensor, secret: Secret) -> float:
    """Return the closeness of triggered embeddings of ``x`` (N, C, H, W), the quantity that an audit searches for.

    ASR shows less: one of the concept's own images in ``x`` may be nearer than the concept's mean.
    """
    space = EmbeddingSpace(forward_batched(model, x).mean(0), torch.zeros(0))
    return round(float(space.closeness(forward_batched(model, secret.trigger(x)))), 4)


def key_of(row: Row) -> str:
    """Return all settings of an encoder as text, to recognize rows of another encoder with the same name."""
    attack = row.attack.spec() if isinstance(row.attack, EncoderAttack) else getattr(row.attack, "__name__", None)
    return json.dumps([row.net, row.data, attack, OUTSIDE_EPOCHS, row.tuned, row.shadow, row.seed], default=repr)


def measured_row(name: str, directory: Path) -> dict[str, Any] | None:
    """Return the stored row of an encoder with its current settings; None without one."""
    path = directory / f"{name}.json"
    row = json.loads(path.read_text()) if path.exists() else {}
    return row if row.get("key") == key_of(ROWS[name]) else None


def run_shard(directory: Path, shard: Shard) -> None:
    """Plant and audit the missing encoders of one shard."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in shard.select(ROWS):
        if measured_row(name, directory) is None:
            row = {"key": key_of(ROWS[name]), **measure(name, directory)}
            (directory / f"{name}.json").write_text(json.dumps(row))
            print(name, row["closeness"], row["seconds"], flush=True)


def table(directory: Path) -> None:
    """Write the result file."""
    null = load_shipped(encoders=True)
    measured = {name: row for name in ROWS if (row := measured_row(name, directory)) is not None}
    models = {name: with_verdict_of_encoder(row, null) for name, row in measured.items()}
    poisoned, clean = ([m for m in models.values() if m["poisoned"] is kind] for kind in (True, False))
    area = auc([m["statistic"] for m in poisoned], [m["statistic"] for m in clean])
    found = sum(m["verdict"] == "backdoored" for m in poisoned)
    alarms = sum(m["verdict"] == "backdoored" for m in clean)
    print(f"{found} of {len(poisoned)} poisoned found, {alarms} of {len(clean)} clean alarmed, AUC {area}")
    summary = {"found": [found, len(poisoned)], "alarms": [alarms, len(clean)], "auc": area}
    save_result(
        "encoders", {**summary, "models": models, "not_yet_run": [name for name in ROWS if name not in measured]}
    )


def with_verdict_of_encoder(row: dict[str, Any], null: NullDistribution | None) -> dict[str, Any]:
    """Return ``row`` with its verdict under the current null distribution of encoders."""
    as_classifier = {"variants": {"full": 1.0}, "classes": CLUSTERS, "data": row["data_is_like"]}
    new = with_verdict({**row, **as_classifier}, null)
    return {**row, **{key: new[key] for key in ("verdict", "p_value", "statistic", "findings")}}


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    add_command = commands.subcommands(command_line)
    commands.add_run_and_table(add_command, run_shard, table, "plant and audit; resumable")
    commands.run(command_line)
