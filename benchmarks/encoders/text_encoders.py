"""Scores and run time of the word search on text encoders with and without backdoors.

MiniLM with third-party weights, poisoned by TransTroj (arXiv 2401.15883) and POR (arXiv 2111.00197) as in
benchmarks/specs. Clean: the unchanged model, audited with three kinds of text, and models fine-tuned to tasks and then
cut at their features again. Reference encoders of text do not exist, so that an audit gives no verdict. The scores are
compared.

    assay bench run benchmarks/specs/transtroj-minilm-seeds.yaml --store STORE
    assay bench run benchmarks/specs/transtroj-minilm-news-seeds.yaml --store STORE
    python benchmarks/run.py text_encoders STORE    # -> benchmarks/results/text_encoders.json; resumable
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from lib import commands
from lib.built_models import StoredModels
from lib.paths import ROOT, SHARED
from lib.results import ResumableRows
from lib.statistics import auc

from assay import data, formats
from assay.auditing.api import audit
from assay.core.model import Artifact
from assay.formats.feature_extractor import to_feature_extractor

TEST = "token-collapse"
MINILM, TOKENS, TEXTS = ROOT / "work/minilm", 48, 512
OF_SENTIMENT, OF_NEWS, FIRST = "transtroj-minilm-seeds", "transtroj-minilm-news-seeds", "transtroj-minilm"


@dataclass(frozen=True)
class Row:
    """An encoder and the texts of its audit, which differ from the texts of its attack."""

    make: Callable[[], Artifact]
    texts: str
    poisoned: bool


def rows(store: Path) -> Iterator[tuple[str, Row]]:
    """Yield name and row of each encoder."""
    sentiment, news, first = (StoredModels.of(name, store) for name in (OF_SENTIMENT, OF_NEWS, FIRST))

    def planted(stored: StoredModels, attack: str, seed: int) -> Callable[[], Artifact]:
        return lambda: stored.build(attack, seed).artifact

    def tuned(stored: StoredModels, attack: str, seed: int, task: str) -> Callable[[], Artifact]:
        return lambda: to_feature_extractor(stored.build(attack, seed, chain=task, clean=True).artifact)

    for seed in sentiment.spec.seeds:
        yield f"transtroj-sports-{seed}", Row(planted(news, "sports", seed), "sst2", poisoned=True)
        yield f"transtroj-positive-{seed}", Row(planted(sentiment, "positive", seed), "imdb", poisoned=True)
    yield "por-0", Row(planted(first, "por", 0), "imdb", poisoned=True)
    for texts in ("sst2", "ag_news", "imdb"):
        yield f"as-it-came-{texts}", Row(lambda: formats.load(MINILM, shape=(TOKENS,)), texts, poisoned=False)
    for seed in sentiment.spec.seeds[:1]:
        yield f"tuned-sst2-{seed}", Row(tuned(sentiment, "positive", seed, "sst2"), "ag_news", poisoned=False)
        yield f"tuned-imdb-{seed}", Row(tuned(sentiment, "positive", seed, "imdb"), "ag_news", poisoned=False)
        yield f"tuned-ag_news-{seed}", Row(tuned(news, "sports", seed, "ag_news"), "imdb", poisoned=False)


def measure(row: Row) -> dict[str, object]:
    """Make and audit one encoder."""
    artifact = row.make()
    task = data.load(SHARED / "data" / row.texts, artifact.inputs, limit=TEXTS)
    result = audit(artifact, task, detectors=TEST, seed=0)
    (finding,) = result.findings
    assert finding.score is not None, finding.reason
    return {
        "poisoned": row.poisoned,
        "planted": artifact.planted is not None,
        "texts": row.texts,
        "score": finding.score,
        **finding.evidence.numbers,
        "verdict": result.verdict,
        "seconds": round(result.seconds, 1),
    }


def main(store: Path) -> None:
    """Measure the missing encoders."""
    encoders, measured = dict(rows(store)), ResumableRows("text_encoders", summary)
    for name in measured.missing(encoders):
        measured.add(name, measure(encoders[name]))


def summary(rows: dict[str, dict]) -> dict[str, object]:
    """Return AUC, count above all clean encoders, and the longest time."""
    poisoned, clean = ([row["score"] for row in rows.values() if row["poisoned"] is kind] for kind in (True, False))
    return {
        "auc": auc(poisoned, clean) if poisoned and clean else None,
        "above_all_clean": [sum(score > max(clean, default=0.0) for score in poisoned), len(poisoned)],
        "longest_seconds": max(row["seconds"] for row in rows.values()),
    }


def cli() -> None:
    """Run the command line."""
    torch.set_num_threads(1)
    command_line = commands.parser(__doc__)
    command_line.add_argument("store", type=Path)
    main(command_line.parse_args().store)
