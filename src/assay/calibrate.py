"""From scores to p-values: what clean reference models score on the same tests.

A score alone says nothing: clean nets have natural attractors too. So each test's score is compared with the scores of
clean reference models, and the audit's one statistic with the same statistic of those models. That makes the stated
false-alarm rate one of the whole audit, however many tests it ran. The audited model is among those that the tests'
tails are fitted to: only so are all statistics alike under the null (with tails fitted to the reference models alone,
14 tests and 100 models, the rate is twice the stated one). (Conformal p-values: Vovk, Gammerman, Shafer:
Algorithmic Learning in a Random World, 2005; for outliers: Bates, Candes, Lei, Romano, Sesia, 2023, arXiv 2104.08279).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from assay.errors import UnusableInput

SCHEMA = "assay.null/2"
FALSE_ALARM_RATE = 0.02
"""The rate of false alarms that the verdict is made for: as low as the fewest reference models can speak for."""

FEWEST_MODELS = 50
"""With n reference models p-values come in steps of 1/(n + 1): with fewer, one odd model would decide the verdict."""

WELL_TRAINED = 0.8
"""Accuracy on the clean samples that divides the reference models: each model is compared with those on its side."""

TAIL = 0.8
"""Quantile of a test's null scores above which its tail is fitted."""


def cell(variant: str, detector: str) -> str:
    """The name of one test: a detector on a variant."""
    return f"{variant}/{detector}"


@dataclass(frozen=True)
class Null:
    """Scores of clean reference models: for each model, a score by test (``cell``)."""

    name: str
    description: str
    rows: tuple[Mapping[str, float], ...]
    origins: tuple[str, ...] = ()  # one line a model: task, architecture, recipe
    fewest_classes: int = 2  # of any of the models: with fewer, their scores say nothing
    accuracies: tuple[float, ...] = ()  # of the models on their clean samples; empty: not known

    def __len__(self) -> int:
        return len(self.rows)

    def like(self, accuracy: float | None) -> Null:
        """The models that learned their task as well, or as badly, as one of ``accuracy``; all where that is not known.

        Nets that learned little lean further to one class by nature. Compared within their own kind only, both kinds
        keep the stated rate (Vovk, Gammerman, Shafer, 2005, chapter 4.5: Mondrian conformal prediction).
        """
        if accuracy is None or not self.accuracies:
            return self
        well = accuracy >= WELL_TRAINED
        kept = [i for i, value in enumerate(self.accuracies) if (value >= WELL_TRAINED) == well]
        return replace(
            self,
            description=f"{self.description}; of them those {'from' if well else 'below'} {WELL_TRAINED:.0%} accuracy",
            rows=tuple(self.rows[i] for i in kept),
            origins=tuple(self.origins[i] for i in kept) if self.origins else (),
            accuracies=tuple(self.accuracies[i] for i in kept),
        )

    def scores(self, test: str) -> np.ndarray:
        """The reference models' scores (n,) on one test, those that abstained left out."""
        return np.array([row[test] for row in self.rows if test in row])

    @cached_property
    def _tails(self) -> dict[str, Tail]:
        return {test: Tail(self.scores(test)) for test in {test for row in self.rows for test in row}}

    def p_value(self, test: str, score: float) -> float | None:
        """Conformal p-value of one test by itself, at least 1/(n+1); None where no reference model has a score."""
        null = self.scores(test)
        return float((1 + (null >= score).sum()) / (len(null) + 1)) if len(null) else None

    def surprise(self, test: str, score: float) -> float | None:
        """How unlikely ``score`` is for a clean model, as -log p with a fitted tail; None for an unknown test."""
        tail = self._tails.get(test)
        return tail.surprise(score) if tail is not None else None

    def statistic(self, scores: Mapping[str, float]) -> float | None:
        """The combined statistic: the largest surprise over all tests. None where no test is known here."""
        known = [self.surprise(test, score) for test, score in scores.items()]
        return max((value for value in known if value is not None), default=None)

    def statistics(self, tests: Iterable[str]) -> np.ndarray:
        """The combined statistic of each reference model over the same ``tests`` as an audit ran."""
        wanted = set(tests)
        values = [self.statistic({t: s for t, s in row.items() if t in wanted}) for row in self.rows]
        return np.array([value for value in values if value is not None])

    def joined(self, scores: Mapping[str, float]) -> Null:
        """These models and, as the last row, one with ``scores``, less the tests that no model here has a score on."""
        known = {test: score for test, score in scores.items() if len(self.scores(test))}
        return Null(self.name, self.description, (*self.rows, known))

    def save(self, path: Path) -> None:
        """Write the file that ``--null`` takes."""
        from assay.formats.files import write_whole

        document = {
            "schema": SCHEMA,
            "name": self.name,
            "description": self.description,
            "fewest_classes": self.fewest_classes,
            "models": [
                {"origin": origin, "accuracy": accuracy, "scores": {test: round(s, 4) for test, s in row.items()}}
                for origin, accuracy, row in zip(
                    self.origins or [""] * len(self), self.accuracies or [None] * len(self), self.rows, strict=True
                )
            ],
        }
        write_whole(path, json.dumps(document, indent=1).encode())


class Tail:
    """One test's null: its empirical distribution, with an exponential tail above the ``TAIL`` quantile.

    The fitted tail only puts tests on one scale; the verdict's p-value is the empirical one of the combined statistic.
    """

    def __init__(self, null: np.ndarray) -> None:
        self.sorted = np.sort(null)
        self.start = float(np.quantile(null, TAIL))
        above = null[null > self.start] - self.start
        spread = float(np.quantile(null, TAIL) - np.median(null))
        self.mean_excess = max(float(above.mean()) if len(above) else 0.0, 0.1 * spread, 1e-6)

    def surprise(self, score: float) -> float:
        """-log of the chance that a clean model scores as high."""
        if score > self.start:
            return -math.log(1 - TAIL) + (score - self.start) / self.mean_excess
        rank = len(self.sorted) - np.searchsorted(self.sorted, score, side="left")
        return -math.log((1 + rank) / (1 + len(self.sorted)))


def load(path: Path) -> Null:
    """Read a null that ``save`` wrote."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}")
        models = document["models"]
        accuracies = tuple(_finite(model["accuracy"]) for model in models if model["accuracy"] is not None)
        if accuracies and len(accuracies) != len(models):
            raise ValueError("some of its models have an accuracy, and some have none")
        return Null(
            str(document["name"]),
            str(document["description"]),
            tuple({str(k): _finite(v) for k, v in model["scores"].items()} for model in models),
            tuple(str(model["origin"]) for model in models),
            int(document["fewest_classes"]),
            accuracies,
        )
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise UnusableInput(
            f"{path}: expected a null distribution as `assay calibrate` writes it; no {error}"
        ) from None
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnusableInput(
            f"{path}: expected a null distribution as `assay calibrate` writes it ({SCHEMA}); {error}"
        ) from None


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a score is {value!r}, and should be a finite number")
    return float(value)


def builtin() -> Null | None:
    """The null that ships with the package."""
    source = resources.files("assay") / "nulls" / "images.json"
    with resources.as_file(source) as path:
        return load(path) if path.exists() else None
