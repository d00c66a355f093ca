"""From scores to p-values: what clean reference models score on the same tests.

A score alone says nothing: clean nets have natural attractors too. So each test's score is compared with the scores of
clean reference models, and the audit's one statistic with the same statistic of those models. That makes the stated
false-alarm rate one of the whole audit, however many tests it ran. The audited model is among those that the tests'
tails are fitted to: only so are all statistics alike under the null (with tails fitted to the reference models alone,
14 tests and 100 models, the rate is twice the stated one). (Conformal p-values: Vovk, Gammerman, Shafer:
Algorithmic Learning in a Random World, 2005; for outliers: Bates, Candes, Lei, Romano, Sesia, 2023, arXiv 2104.08279).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from assay.calibration.data_profile import STEPS, Likeness

FALSE_ALARM_RATE = 0.02
"""The rate of false alarms that the verdict is made for: as low as the fewest reference models can speak for."""

FEWEST_MODELS = 49
"""With n reference models p-values come in steps of 1/(n + 1): with fewer, none is as low as the rate."""

WELL_TRAINED = 0.9
"""Accuracy on the clean samples that divides the reference models: each model is compared with those on its side."""

FAR = 4.0
"""Data further than this from all reference data, in standard deviations within a family, is like none of it.

Families of the shipped null are further apart than that. Of draws of 20 GTSRB pictures a tenth is like none of them and
a twentieth like photos of objects; of draws of 50 none is.
"""

ENOUGH = 20
"""Models of a family among those compared with, from which on the family is known.

Judged in a pool of all families with 2 digits nets in it, 18 of 49 clean digits nets alarm at 2 %; with 5, 8 of 46;
with 13, 2 of 38.
"""

TAIL = 0.8
"""Quantile of a test's null scores above which its tail is fitted."""

FEW = 5
"""Scores above that quantile: of fewer, no tail is fitted."""

START = -math.log(1 - TAIL)
"""The surprise at which the tails start."""


def cell(variant: str, detector: str) -> str:
    """The name of one test: a detector on a variant."""
    return f"{variant}/{detector}"


def detector_of(test: str) -> str:
    """The detector of a test that ``cell`` named."""
    return test.rpartition("/")[2]


class Score(NamedTuple):
    """What one test says of one model."""

    value: float
    target: int | None = None  # the class that it names; None: it names none


@dataclass(frozen=True)
class Reference:
    """One clean model: a score by test (``cell``), and what it may be compared by."""

    scores: Mapping[str, Score]
    origin: str = ""  # one line: task, architecture, recipe
    accuracy: float | None = None  # on its clean samples
    family: str = ""  # of data: photos, digits, ...
    data: Likeness = ()  # of its clean samples

    @cached_property
    def detectors(self) -> frozenset[str]:
        """What has scored it, in whichever form."""
        return frozenset(map(detector_of, self.scores))

    def learned_as(self, accuracy: float) -> bool:
        """Whether it learned its task as well, or as badly, as a model of ``accuracy``; True where nobody knows."""
        return self.accuracy is None or (self.accuracy >= WELL_TRAINED) == (accuracy >= WELL_TRAINED)


@dataclass(frozen=True)
class Null:
    """Clean reference models."""

    name: str
    description: str
    models: tuple[Reference, ...]
    fewest_classes: int = 2  # of any of the models: with fewer, their scores say nothing
    encoders: bool = False  # they are encoders; False: they name classes

    def __len__(self) -> int:
        return len(self.models)

    def like(self, accuracy: float | None, data: Likeness | None) -> Null:
        """The models that learned as well, or as badly, as one of ``accuracy``, on data like ``data``.

        Nets that learned little lean further to one class by nature, and so do nets on some kinds of data. Compared
        within their own kind only, all kinds keep the stated rate (Vovk, Gammerman, Shafer, 2005, chapter 4.5: Mondrian
        conformal prediction). Where there are fewer than ``FEWEST_MODELS`` of the family, or the data are like none,
        the models on all data count: the rate is then that of the mixture, and an estimate for the family itself.
        """
        family, side = self.family_of(data), self._side(accuracy)
        same = tuple(model for model in side if model.family == family)
        kept = same if family and len(same) >= FEWEST_MODELS else side
        if len(kept) == len(self):
            return self
        chosen = [f"of them the {len(kept)}"]
        if accuracy is not None and side is not self.models:
            chosen.append(f"{'from' if accuracy >= WELL_TRAINED else 'below'} {WELL_TRAINED:.0%} accuracy")
        if kept is same:
            chosen.append(f"on {family}")
        return replace(self, models=kept, description=f"{self.description}; {' '.join(chosen)}")

    def knows(self, accuracy: float | None, data: Likeness | None) -> bool:
        """Whether enough models that learned as well were made on data like ``data``; True where nobody can tell."""
        if data is None or not any(model.data for model in self.models):
            return True
        family = self.family_of(data)
        return bool(family) and sum(model.family == family for model in self._side(accuracy)) >= ENOUGH

    def _side(self, accuracy: float | None) -> tuple[Reference, ...]:
        """Those that learned as well as one of ``accuracy``; all of them where those are too few for a verdict.

        Somebody's own clean models of one task are alike, on whichever side of the border they come to lie.
        """
        side = tuple(model for model in self.models if accuracy is None or model.learned_as(accuracy))
        return side if FEWEST_MODELS <= len(side) < len(self) else self.models

    def family_of(self, data: Likeness | None) -> str:
        """The family whose data is the most like ``data``; empty where none is."""
        known = [model for model in self.models if model.data]
        if data is None or not known:
            return ""
        points = np.array([model.data for model in known])
        families = np.array([model.family for model in known])
        spread = np.concatenate([points[families == name] - points[families == name].mean(0) for name in set(families)])
        steps = (points - np.array(data)) / np.maximum(spread.std(0), STEPS)
        distances = np.sqrt((steps**2).mean(1))
        return known[int(distances.argmin())].family if distances.min() <= FAR else ""

    def scores(self, test: str) -> np.ndarray:
        """The reference models' scores (n,) on one test, those that abstained left out."""
        return np.array([model.scores[test].value for model in self.models if test in model.scores])

    @cached_property
    def _tails(self) -> dict[str, Tail]:
        nulls = {test: self.scores(test) for test in {test for model in self.models for test in model.scores}}
        forms: dict[str, list[np.ndarray]] = {}
        for test, null in sorted(nulls.items()):
            forms.setdefault(detector_of(test), []).append(null)
        return {test: Tail(null, forms[detector_of(test)]) for test, null in nulls.items()}

    def p_value(self, test: str, score: float) -> float | None:
        """Conformal p-value of one test by itself, at least 1/(n+1); None where no reference model has a score."""
        null = self.scores(test)
        return float((1 + (null >= score).sum()) / (len(null) + 1)) if len(null) else None

    def surprise(self, test: str, score: float) -> float | None:
        """How unlikely ``score`` is for a clean model, as -log p with a fitted tail; None for an unknown test."""
        tail = self._tails.get(test)
        return tail.surprise(score) if tail is not None else None

    def statistic(self, scores: Mapping[str, Score]) -> Statistic | None:
        """All tests in one number; None where no test is known here.

        Detectors that name the same class add up: it is the length of the vector of what surprises beyond the start of
        the tails, for the class for which it is longest. One loud detector does, and so do many faint ones that agree;
        in a clean model those name different classes. Each counts once, in the form where it is loudest: the forms of
        one model are nearly copies, and what a scan says of one it says of all.
        """
        surprises = {test: s for test, score in scores.items() if (s := self.surprise(test, score.value)) is not None}
        if not surprises:
            return None
        by_class: dict[object, list[str]] = {}
        for test in sorted(surprises, key=surprises.__getitem__, reverse=True):
            target = scores[test].target
            by_class.setdefault(test if target is None else target, []).append(test)  # who names none agrees with none
        lengths = {name: _length(tests, surprises) for name, tests in by_class.items()}
        longest = max(lengths, key=lambda name: (lengths[name], surprises[by_class[name][0]]))
        tests = by_class[longest]
        value = START + lengths[longest] if lengths[longest] else surprises[tests[0]]
        loud = [test for test in tests if surprises[test] > START]
        return Statistic(value, tuple(loud or tests[:1]))

    def statistics(self, tests: Iterable[str]) -> np.ndarray:
        """The combined statistic of each reference model over the same ``tests`` as an audit ran."""
        wanted = set(tests)
        found = [self.statistic({t: s for t, s in model.scores.items() if t in wanted}) for model in self.models]
        return np.array([statistic.value for statistic in found if statistic is not None])

    def joined(self, scores: Mapping[str, Score]) -> Null:
        """These models and, as the last row, one with ``scores``, less the tests that these models cannot judge.

        Models that one of its detectors has never scored are left out: they would be measured by less.
        """
        able = {name for name in set(map(detector_of, scores)) if self._of_all_families(name)}
        new = Reference({t: score for t, score in scores.items() if detector_of(t) in able and len(self.scores(t))})
        return replace(self, models=(*(model for model in self.models if new.detectors <= model.detectors), new))

    def can_judge(self, detector: str) -> bool:
        """Whether enough of these models have been scored by ``detector`` for a verdict that counts it."""
        scored = sum(detector in model.detectors for model in self.models)
        return scored >= min(FEWEST_MODELS, len(self)) and self._of_all_families(detector)

    def _of_all_families(self, detector: str) -> bool:
        """Whether the models that ``detector`` has scored are of the same families of data as all of these.

        Else a model would be compared with models on other data than its own.
        """
        scored = Counter(model.family for model in self.models if detector in model.detectors)
        families = Counter(model.family for model in self.models)
        return len(families) < 2 or all(scored[name] >= min(ENOUGH, count) for name, count in families.items())


def _length(tests: list[str], surprises: Mapping[str, float]) -> float:
    """Of the vector of the detectors' surprises beyond the start of the tails; ``tests``: the loudest first."""
    loudest: dict[str, float] = {}
    for test in tests:
        loudest.setdefault(detector_of(test), surprises[test])
    return math.hypot(*(max(0.0, surprise - START) for surprise in loudest.values()))


class Statistic(NamedTuple):
    """All tests of a model in one number."""

    value: float
    tests: tuple[str, ...]  # those that it comes from, the most surprising first; they name the same class


def _above(null: np.ndarray) -> np.ndarray:
    """By how much the scores above the ``TAIL`` quantile exceed it, the smallest first."""
    start = np.quantile(null, TAIL)
    return np.sort(null[null > start] - start)


def _scale(above: np.ndarray) -> float:
    """The mean excess of an exponential tail with the excesses ``above``, in increasing order.

    By their median, or by the second largest where that speaks for more: some tests have heavier tails than their
    middle shows. Not by the mean or the largest: the audited model is among them, and the one outlier that this is
    all about would stretch its own scale.
    """
    if len(above) < FEW:
        return 0.0
    expected = sum(1 / rank for rank in range(2, len(above) + 1))  # of the second largest, in mean excesses
    return max(float(np.median(above)) / math.log(2), float(above[-2]) / expected)


class Tail:
    """One test's null: its empirical distribution, with an exponential tail above the ``TAIL`` quantile.

    The fitted tail only puts tests on one scale; the verdict's p-value is the empirical one of the combined statistic.
    Where fewer than ``FEW`` scores are above, as where clean nets score nothing, the scale is the largest of the
    detector's in all its ``forms``: it measures alike in each.
    """

    def __init__(self, null: np.ndarray, forms: Sequence[np.ndarray] = ()) -> None:
        self.sorted = np.sort(null)
        self.start = float(np.quantile(null, TAIL))
        alike = [null] if (null > self.start).sum() >= FEW or not forms else forms
        spread = max(float(np.quantile(scores, TAIL) - np.median(scores)) for scores in alike)
        self.scale = max(*(_scale(_above(scores)) for scores in alike), 0.1 * spread, 1e-6)

    def surprise(self, score: float) -> float:
        """-log of the chance that a clean model scores as high."""
        if score > self.start:
            return START + (score - self.start) / self.scale
        rank = len(self.sorted) - np.searchsorted(self.sorted, score, side="left")
        return -math.log((1 + rank) / (1 + len(self.sorted)))
