"""Null distribution: p-values from the scores of clean reference models on the same tests.

A score alone has no meaning, because clean models have natural attractors too. Each test's score is therefore compared
with the scores of clean reference models, and the audit's combined statistic with the same statistic of those models.
The stated false-alarm rate is then a rate of the whole audit, for any number of tests.
The tails are fitted to the reference models and the audited model. Only then do all statistics have the same
distribution under the null. With tails fitted to the reference models alone (14 tests, 100 models), the rate is twice
the stated one.
Conformal p-values: Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005; for outliers: Bates, Candes,
Lei, Romano, Sesia, 2023, arXiv 2104.08279.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from assay.calibration.data_profile import PROFILE_SPREAD, DataProfile
from assay.calibration.reference import WELL_TRAINED, CleanReferenceModel, Score, detector_of
from assay.calibration.tail import TAIL_START, Tail

FALSE_ALARM_RATE = 0.02  # target rate of the verdict; MIN_REFERENCE_MODELS cannot resolve a smaller p-value
MIN_REFERENCE_MODELS = 49  # n models give p-values in steps of 1/(n + 1): fewer cannot reach the rate

# Distance, in standard deviations within a family, above which data counts as unlike all reference data. Families of
# the shipped null are further apart. Of draws of 20 GTSRB images, a tenth is beyond it and a twentieth is closest to
# photos of objects; of draws of 50, none.
MAX_PROFILE_DISTANCE = 4.0

# Models of a family, among those compared with, from which on the family counts as known. False alarms of clean digits
# models at a rate of 2 %, in a pool of all families: 18 of 49 with 2 digits models in the pool, 8 of 46 with 5, and
# 2 of 38 with 13.
MIN_FAMILY_SIZE = 20


class Statistic(NamedTuple):
    """Combined statistic of all tests of one model."""

    value: float
    tests: tuple[str, ...]  # the tests behind the value, by decreasing surprisal; all name the same class


class Comparison(NamedTuple):
    """Statistic of an audited model, compared with the same statistic of clean reference models."""

    statistic: float
    tests: tuple[str, ...]  # the tests behind the statistic, by decreasing surprisal
    p_value: float
    null_statistics: tuple[float, ...]  # of the reference models


@dataclass(frozen=True)
class NullDistribution:
    """Clean reference models, and the statistics computed from their scores."""

    name: str
    description: str
    models: tuple[CleanReferenceModel, ...]
    fewest_classes: int = 2  # of any of the models; scores of models with fewer classes are not comparable
    encoders: bool = False  # True: the models are encoders; False: classifiers
    digest: str | None = field(default=None, compare=False)  # sha256 of its file; None for one in memory

    def __len__(self) -> int:
        return len(self.models)

    # --- selection of comparable models

    def matched_to(self, accuracy: float | None, data: DataProfile | None) -> NullDistribution:
        """Return the reference models in the same accuracy band, trained on similar data.

        Poorly trained models have a larger class bias, and so do models on some kinds of data. Compared within their
        own kind, all kinds keep the stated rate (Vovk, Gammerman, Shafer, 2005, chapter 4.5: Mondrian conformal
        prediction). If the family has fewer than ``MIN_REFERENCE_MODELS`` models, or the data match no family, models
        on all data count. The rate is then the rate of the mixture, and an estimate for the family itself.

        Args:
            accuracy: Accuracy of the audited model on its clean samples; None: unknown, both bands count.
            data: Profile of the clean samples; None: unknown.
        """
        family, band = self.family_of(data), self._accuracy_band(accuracy)
        same = tuple(model for model in band if model.family == family)
        kept = same if family and len(same) >= MIN_REFERENCE_MODELS else band
        if len(kept) == len(self):
            return self
        selection = [f"of them the {len(kept)}"]
        if accuracy is not None and band is not self.models:
            selection.append(f"{'from' if accuracy >= WELL_TRAINED else 'below'} {WELL_TRAINED:.0%} accuracy")
        if kept is same:
            selection.append(f"on {family}")
        return replace(self, models=kept, description=f"{self.description}; {' '.join(selection)}")

    def has_matched(self, accuracy: float | None, data: DataProfile | None) -> bool:
        """Return whether enough models of the accuracy band were trained on similar data; True if unknown.

        Args:
            accuracy: Accuracy of the audited model on its clean samples; None: unknown, both bands count.
            data: Profile of the clean samples; None: unknown.
        """
        if data is None or not any(model.data for model in self.models):
            return True
        family = self.family_of(data)
        return bool(family) and sum(m.family == family for m in self._accuracy_band(accuracy)) >= MIN_FAMILY_SIZE

    def family_of(self, data: DataProfile | None) -> str:
        """Return the family with the most similar data; empty if none is similar."""
        known = [model for model in self.models if model.data]
        if data is None or not known:
            return ""
        points = np.array([model.data for model in known])
        families = np.array([model.family for model in known])
        within = np.concatenate([points[families == name] - points[families == name].mean(0) for name in set(families)])
        steps = (points - np.array(data)) / np.maximum(within.std(0), PROFILE_SPREAD)
        distances = np.sqrt((steps**2).mean(1))
        return known[int(distances.argmin())].family if distances.min() <= MAX_PROFILE_DISTANCE else ""

    def _accuracy_band(self, accuracy: float | None) -> tuple[CleanReferenceModel, ...]:
        """Return the models of the accuracy band, or all models if the band has too few for a verdict.

        A user's own clean models of one task are alike, on both sides of the border between the bands.
        """
        band = tuple(model for model in self.models if accuracy is None or model.in_accuracy_band(accuracy))
        return band if MIN_REFERENCE_MODELS <= len(band) < len(self) else self.models

    def covers(self, detector: str) -> bool:
        """Return whether ``detector`` scored enough of these models to be part of a verdict."""
        scored = sum(detector in model.detectors for model in self.models)
        return scored >= min(MIN_REFERENCE_MODELS, len(self)) and self._covers_families(detector)

    def _covers_families(self, detector: str) -> bool:
        """Return whether ``detector`` scored models of all data families. If not, the comparison would mix families."""
        scored = Counter(model.family for model in self.models if detector in model.detectors)
        families = Counter(model.family for model in self.models)
        return len(families) < 2 or all(scored[name] >= min(MIN_FAMILY_SIZE, n) for name, n in families.items())

    # --- one test

    def scores(self, test: str) -> np.ndarray:
        """Return the reference models' scores (n,) on one test. Models without a score are left out."""
        return np.array([model.scores[test].value for model in self.models if test in model.scores])

    def p_value(self, test: str, score: float) -> float | None:
        """Return the conformal p-value of one test alone, at least 1/(n+1); None if no reference model has a score.

        Args:
            test: "variant/detector".
            score: Score of the audited model.
        """
        null = self.scores(test)
        return float((1 + (null >= score).sum()) / (len(null) + 1)) if len(null) else None

    def surprisal(self, test: str, score: float) -> float | None:
        """Return -log p of ``score`` for a clean model, with a fitted tail; None for an unknown test.

        Args:
            test: "variant/detector".
            score: Score of the audited model.
        """
        tail = self._tails.get(test)
        return tail.surprisal(score) if tail is not None else None

    @cached_property
    def _tails(self) -> dict[str, Tail]:
        nulls = {test: self.scores(test) for test in {test for model in self.models for test in model.scores}}
        variants: dict[str, list[np.ndarray]] = {}
        for test, null in sorted(nulls.items()):
            variants.setdefault(detector_of(test), []).append(null)
        return {test: Tail(null, variants[detector_of(test)]) for test, null in nulls.items()}

    # --- all tests together

    def compare(self, scores: Mapping[str, Score], lost: Iterable[str] = ()) -> Comparison | None:
        """Compare the scores of an audited model with those of the reference models; None if no test is comparable.

        Args:
            scores: Scores of the audited model, by test.
            lost: Tests of the audited model on broken variants. Scores of reference models on these tests count.
        """
        pool = self.with_candidate(scores)
        candidate = pool.models[-1].scores
        own = pool.statistic(candidate)
        if own is None:
            return None
        others = pool.statistics({*candidate, *lost})[:-1]
        p_value = float((1 + (others >= own.value).sum()) / (len(others) + 1))
        return Comparison(own.value, own.tests, p_value, tuple(others.tolist()))

    def with_candidate(self, scores: Mapping[str, Score]) -> NullDistribution:
        """Return these models and, as the last one, the audited model.

        Reference models without a score of one of the candidate's detectors are left out, because their statistic
        would combine fewer tests.

        Args:
            scores: Scores of the audited model, by test. Tests without enough reference scores are dropped.
        """
        usable = {name for name in set(map(detector_of, scores)) if self._covers_families(name)}
        candidate = CleanReferenceModel(
            {test: score for test, score in scores.items() if detector_of(test) in usable and len(self.scores(test))}
        )
        compared = (model for model in self.models if candidate.detectors <= model.detectors)
        return replace(self, models=(*compared, candidate))

    def statistic(self, scores: Mapping[str, Score]) -> Statistic | None:
        """Return the combined statistic of one model's scores; None if no test is known here.

        Detectors with the same class add up. The statistic is the length of the vector of their surprisals beyond
        the start of the tails, for the class with the longest vector. One high surprisal gives a large statistic, and
        so do many small ones that agree; in a clean model the tests name different classes.
        Each detector counts once, with its highest surprisal over the variants. The variants of a model are nearly
        copies, so a detector scores all of them alike.
        """
        surprisals = {test: s for test, score in scores.items() if (s := self.surprisal(test, score.value)) is not None}
        if not surprisals:
            return None
        by_class: dict[object, list[str]] = {}
        for test in sorted(surprisals, key=surprisals.__getitem__, reverse=True):
            target = scores[test].target
            by_class.setdefault(test if target is None else target, []).append(test)  # no class: a group of its own
        lengths = {name: _vector_length(tests, surprisals) for name, tests in by_class.items()}
        longest = max(lengths, key=lambda name: (lengths[name], surprisals[by_class[name][0]]))
        tests = by_class[longest]
        value = TAIL_START + lengths[longest] if lengths[longest] else surprisals[tests[0]]
        in_tail = [test for test in tests if surprisals[test] > TAIL_START]
        return Statistic(value, tuple(in_tail or tests[:1]))

    def statistics(self, tests: Iterable[str]) -> np.ndarray:
        """Return the combined statistic of each model over the same ``tests``. Models without any are left out."""
        wanted = set(tests)
        found = [self.statistic({t: s for t, s in model.scores.items() if t in wanted}) for model in self.models]
        return np.array([statistic.value for statistic in found if statistic is not None])


def _vector_length(tests: list[str], surprisals: Mapping[str, float]) -> float:
    """Return the length of the vector of the detectors' surprisals beyond the start of the tails.

    Args:
        tests: By decreasing surprisal.
        surprisals: By test.
    """
    highest: dict[str, float] = {}
    for test in tests:
        highest.setdefault(detector_of(test), surprisals[test])
    return math.hypot(*(max(0.0, surprisal - TAIL_START) for surprisal in highest.values()))
