"""What every detector shares: its inputs, its Finding, and the harness that keeps it honest."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, final

import torch

from assay.core.dataset import Split
from assay.core.errors import Inconclusive, Unfinished, first_line
from assay.core.finding import Finding
from assay.core.model import Artifact, Modality, digest_of_module
from assay.core.progress import Progress
from assay.nn.encoders import probed_under
from assay.nn.inference import logits
from assay.nn.log_probs import LogOf, are_probabilities
from assay.nn.modes import evaluating
from assay.nn.unit_margin import SAMPLES, UnitMargin, in_unit_margin


class Budget:
    """A deadline in seconds from now; ``math.inf`` for none."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())


class Detector(ABC):
    """A test for backdoors: ``run`` is the method's own, ``__call__`` the harness around it.

    A detector never sees a Secret, and must leave the net as it found it.
    """

    name: ClassVar[str]  # as the field names it, kebab-case; the key of its null distribution
    title: ClassVar[str]  # one line for people
    needs: ClassVar[frozenset[str]]  # of "gradients", "clean", "weights", "reference", "encoder", "trusted-encoder"
    modality: ClassVar[Modality | None] = Modality.IMAGE  # what it can put a trigger on; None: it puts none on anything
    compared: ClassVar[bool] = True  # False: it finds a thing or does not, and needs no clean models beside it
    on_variants: ClassVar[bool] = True  # False: an audit runs it on the model as given only

    @abstractmethod
    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Score ``artifact``. Raise Inconclusive, with the reason, to abstain."""

    @final
    def __call__(
        self,
        artifact: Artifact,
        clean: Split,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        progress: Progress = lambda share: None,
    ) -> Finding:
        """Run in evaluation mode with a fixed seed; check the score and that the weights stayed as they were."""
        start = time.perf_counter()
        budget = budget or Budget()
        if "gradients" in self.needs:
            artifact = artifact.with_gradients()
        missing = self._missing(artifact, clean)
        if missing:
            return Finding(self.name, "abstained", reason=missing)
        if budget.left() <= 0:
            late = "the budget ended before it began: give it more"
            return Finding(self.name, "abstained", reason=late, unfinished=True)
        before = _digests(artifact)
        beside = artifact if artifact.reference is None else artifact.reference
        with evaluating(artifact.module), evaluating(beside.module), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                scaled = comparable(artifact, clean)
                finding = self.run(scaled, clean, seed=seed, budget=budget, progress=progress)
            except Inconclusive as why:
                unfinished = isinstance(why, Unfinished)
                finding = Finding(self.name, "abstained", reason=str(why), unfinished=unfinished)
            except Exception as error:  # a stranger's net can fail in any way: the other detectors still have their say
                finding = Finding(self.name, "failed", reason=f"{type(error).__name__}: {first_line(error)}")
        if _digests(artifact) != before:
            raise RuntimeError(f"detector {self.name} changed the weights of the model that it was given")
        if finding.status == "ok" and (finding.score is None or not math.isfinite(finding.score)):
            finding = Finding(self.name, "failed", reason=f"expected a finite score, got {finding.score}")
        return replace(finding, compared=self.compared, seconds=time.perf_counter() - start)

    def _missing(self, artifact: Artifact, clean: Split) -> str:
        if self.modality is not None and artifact.modality is not self.modality:
            return f"is for models of {self.modality}s, and this one takes {artifact.modality}s"
        if "gradients" in self.needs and not artifact.differentiable:
            why = f": {artifact.no_gradient_reason}" if artifact.no_gradient_reason else ""
            return f"needs gradients, which a model in {artifact.format} format does not give{why}"
        if "clean" in self.needs and len(clean) == 0:
            return "needs clean samples: pass some with --data"
        if "weights" in self.needs and not artifact.weights and not any(True for _ in artifact.module.parameters()):
            return "needs the weights, and this model shows none"
        if missing := self._missing_beside(artifact):
            return missing
        if artifact.num_classes is None:
            return "needs class logits, and this model gives embeddings"
        if "encoder" in self.needs and probed_under(artifact.module) is None:
            return "is for encoders, and this model names classes"
        return ""

    def _missing_beside(self, artifact: Artifact) -> str:
        """What it is compared with: a model of its kind, or, of a classifier, the encoder that it comes from."""
        reference, encoder = artifact.reference, probed_under(artifact.module) is not None
        if "reference" in self.needs and (reference is None or (reference.num_classes is None) != encoder):
            return "needs the model that this one is a compressed form of: pass it with --reference"
        if "trusted-encoder" in self.needs and (reference is None or reference.num_classes is not None or encoder):
            return "needs the encoder that this classifier was made from, a trusted copy: pass it with --reference"
        return ""


def _digests(artifact: Artifact) -> tuple[str, ...]:
    """Of the weights of the model and of what it is compared with."""
    both = (artifact, artifact.reference)
    return tuple(digest_of_module(model.module) for model in both if model is not None)


def comparable(artifact: Artifact, clean: Split) -> Artifact:
    """``artifact`` with its logits in units of its own margin on ``clean``, so that scores compare between models."""
    if isinstance(artifact.module, UnitMargin) or artifact.num_classes is None or not len(clean):
        return artifact
    net, answers = artifact.module, logits(artifact.module, clean.x[:SAMPLES])
    if are_probabilities(answers):
        net = LogOf(net)
        answers = logits(net, clean.x[:SAMPLES])
    return replace(artifact, module=in_unit_margin(net, answers))
