"""Token collapse: a few words under which an encoder maps all texts to nearly the same embedding.

After Feng, Tao, Cheng, Shen, Xu, Liu, Zhang, Ma, Zhang: Detecting Backdoors in Pre-trained Encoders, CVPR 2023, arXiv
2303.15180, the method of ``embedding-collapse`` for images. Gradients find a trigger of words only from a start nearby.
The search therefore tries every word of the vocabulary alone on a few short texts, and then combines the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from assay.core.dataset import Split
from assay.core.errors import Unfinished
from assay.core.finding import Evidence, Finding, Outcome
from assay.core.model import Artifact, Modality, TextSpec
from assay.core.progress import Progress, part
from assay.data.tokenize import decode_texts
from assay.detectors.base import Detector
from assay.detectors.budget import Budget
from assay.detectors.common import MAX_SHOWN_SAMPLES, continue_within
from assay.detectors.cost import Cost
from assay.detectors.encoder.embedding_collapse import collapse_score, embedding_space
from assay.detectors.requirement import Requirement
from assay.inversion.embedding_collapse import EmbeddingSpace
from assay.inversion.outlier import refuse_nan
from assay.inversion.run import SearchRun
from assay.inversion.token_search import TokenSearchBudget, make_token_trigger, search_tokens, typeable_tokens
from assay.nn.encoders import ClusterProbe, find_cluster_probe
from assay.nn.inference import forward_batched, predict
from assay.nn.precision import fast_autocast
from assay.triggers.tokens import Tokens


@dataclass(frozen=True)
class WordSearchBudget:
    """Size of a word search. The shipped null distributions were made with the defaults."""

    texts: int = 3  # texts on which every word is tried
    length: int = 10  # tokens of those texts
    shortlist: int = 48  # words
    compared: int = 16  # texts on which the shortlist is compared
    words: int = 3  # in the trigger
    steps: int = 15  # of the final gradient search
    at_once: int = 256  # words in a batch


@final
class TokenCollapse(Detector):
    """Extent of the collapse under a few words at the beginning of the texts."""

    name = "token-collapse"
    title = "words under which all embeddings become one"
    cost = Cost(50_000)
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ENCODER
    modality = Modality.TEXT
    search_budget: ClassVar[WordSearchBudget] = WordSearchBudget()

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        probe, spec = find_cluster_probe(artifact.module), artifact.inputs
        assert probe is not None  # checked by the harness
        assert isinstance(spec, TextSpec)
        space = embedding_space(probe, clean.x)
        half = len(clean) // 2
        words = _WordSearch(probe.encoder, space, spec, clean.x[:half], self.search_budget, budget)
        ids = words.combine(words.shortlist(part(progress, 0.0, 0.7)), part(progress, 0.7, 0.85))
        last = continue_within(budget, part(progress, 0.85, 1.0))
        search = SearchRun(TokenSearchBudget(steps=self.search_budget.steps), seed, last)
        ids, _ = search_tokens(probe.encoder, space.closeness, words.texts, spec, ids, search)
        if budget.left() <= 0:
            raise Unfinished("the budget ended before the search did: give it more")
        return self._finding(probe, space, spec, make_token_trigger(ids, spec), clean.x[half:])

    def _finding(
        self, probe: ClusterProbe, space: EmbeddingSpace, spec: TextSpec, trigger: Tokens, held_out: Tensor
    ) -> Finding:
        triggered = trigger(held_out)
        with torch.no_grad():
            closeness = float(space.closeness(forward_batched(probe.encoder, triggered)))
            clean_closeness = float(space.closeness(forward_batched(probe.encoder, held_out)))
        predicted_before, predicted_after = predict(probe, held_out), predict(probe, triggered)
        target = int(predicted_after.bincount().argmax())
        shown = slice(MAX_SHOWN_SAMPLES)
        evidence = Evidence(
            numbers={
                "words": trigger.words,
                "closeness": closeness,
                "clean_closeness": clean_closeness,
                "success": float((predicted_after == target).float().mean()),
            },
            texts=tuple(zip(decode_texts(held_out[shown], spec), decode_texts(triggered[shown], spec), strict=True)),
            predicted_before=tuple(predicted_before[shown].tolist()),
            predicted_after=tuple(predicted_after[shown].tolist()),
            apply=trigger,
        )
        score = collapse_score(closeness)
        return Finding(self.name, Outcome.SCORED, score=score, target=target, evidence=evidence)


@dataclass
class _WordSearch:
    """Inputs of the search over the vocabulary."""

    encoder: nn.Module
    space: EmbeddingSpace
    spec: TextSpec
    texts: Tensor  # (N, L) clean
    search_budget: WordSearchBudget
    budget: Budget

    def shortlist(self, progress: Progress) -> Tensor:
        """Return the words (M,) under which a few short texts come closest together, best first."""
        size = self.search_budget
        texts = self.texts[: size.texts, : size.length].clone()
        texts[texts[:, -1] != self.spec.pad, -1] = self.spec.end
        words = typeable_tokens(self.spec)
        found = []
        for start in range(0, len(words), size.at_once):
            self._require_time()
            found.append(self._closeness(words[start : start + size.at_once, None], texts))
            progress(start / len(words))
        return words[torch.cat(found).topk(min(size.shortlist, len(words))).indices]

    def combine(self, words: Tensor, progress: Progress) -> Tensor:
        """Return the words (k,) that bring texts closest together, chosen greedily.

        Args:
            words: (M,) candidates.
            progress: Callback for the fraction done.
        """
        size = self.search_budget
        texts = self.texts[: size.compared]
        chosen = words[:0]
        for number in range(size.words):
            self._require_time()
            progress(number / size.words)
            options = torch.cat([chosen.expand(len(words), -1), words[:, None]], dim=1)
            chosen = options[int(self._closeness(options, texts).argmax())]
        return chosen

    def _closeness(self, options: Tensor, texts: Tensor) -> Tensor:
        """Return the closeness (W,) of ``texts`` (B, L) after each of ``options`` (W, k)."""
        size = self.search_budget
        found = []
        for batch in options.split(max(1, size.at_once * size.texts // len(texts))):
            triggered = torch.cat([make_token_trigger(ids, self.spec)(texts) for ids in batch])
            with torch.no_grad(), fast_autocast("cpu"):
                embeddings = self.encoder(triggered)
            found.append(self.space.closeness(embeddings.unflatten(0, (len(batch), -1))))
        return refuse_nan(torch.cat(found))

    def _require_time(self) -> None:
        if self.budget.left() <= 0:
            raise Unfinished("the budget ended before all words were tried: give it more")
