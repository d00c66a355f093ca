"""Token collapse: a few words under which an encoder gives all texts nearly the same embedding.

After Feng, Tao, Cheng, Shen, Xu, Liu, Zhang, Ma, Zhang: Detecting Backdoors in Pre-trained Encoders, CVPR 2023, arXiv
2303.15180, as ``embedding-collapse`` is for pictures. Gradients lead to no trigger of words that is not nearly there,
so every word of the vocabulary is tried first, alone, on a few short texts; then the best are put together.
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
from assay.detectors.encoder.embedding_collapse import space_of, surprise
from assay.detectors.requirement import Requirement
from assay.detectors.trigger_inversion.common import SHOWN, ticking
from assay.inversion.embedding_collapse import EmbeddingSpace
from assay.inversion.run import SearchRun
from assay.inversion.token_search import TokenSearchBudget, make_token_trigger, search_tokens, typeable_tokens
from assay.nn.encoders import find_cluster_probe
from assay.nn.inference import forward_batched, predict
from assay.nn.precision import fast_autocast


@dataclass(frozen=True)
class WordEffort:
    """How much is tried; the defaults are what the shipped null distributions were made with."""

    texts: int = 3  # that every word is tried on,
    length: int = 10  # cut to so many tokens
    shortlist: int = 48
    compared: int = 16  # texts that those are compared on
    words: int = 3  # of the trigger
    steps: int = 15  # of the search by gradients that goes on from there
    at_once: int = 256  # words


@final
class TokenCollapse(Detector):
    """How far embeddings collapse under a few words at the beginning of the texts."""

    name = "token-collapse"
    title = "words under which all embeddings become one"
    needs = Requirement.GRADIENTS | Requirement.CLEAN_SAMPLES | Requirement.ENCODER
    modality = Modality.TEXT
    effort: ClassVar[WordEffort] = WordEffort()

    def run(self, artifact: Artifact, clean: Split, *, seed: int, budget: Budget, progress: Progress) -> Finding:
        """Raises Unfinished where the budget ends before the search does."""
        net, spec = find_cluster_probe(artifact.module), artifact.inputs
        assert net is not None  # the harness has looked
        assert isinstance(spec, TextSpec)
        space = space_of(net, clean.x)
        half = len(clean) // 2
        run = _Words(net.encoder, space, spec, clean.x[:half], self.effort, budget)
        best = run.shortlist(part(progress, 0.0, 0.7))
        ids = run.together(best, part(progress, 0.7, 0.85))
        ids, _ = search_tokens(
            net.encoder,
            space.closeness,
            run.texts,
            spec,
            ids,
            SearchRun(TokenSearchBudget(steps=self.effort.steps), seed, ticking(budget, part(progress, 0.85, 1.0))),
        )
        if budget.left() <= 0:
            raise Unfinished("the budget ended before the search did: give it more")
        trigger = make_token_trigger(ids, spec)
        held = clean.x[half:]
        with torch.no_grad():
            found = float(space.closeness(forward_batched(net.encoder, trigger(held))))
            before = float(space.closeness(forward_batched(net.encoder, held)))
        said, triggered = predict(net, held), predict(net, trigger(held))
        target = int(triggered.bincount().argmax())
        success = float((triggered == target).float().mean())
        numbers: dict[str, float | int | str] = {
            "words": trigger.words,
            "closeness": found,
            "clean_closeness": before,
            "success": success,
        }
        evidence = Evidence(
            numbers=numbers,
            texts=tuple(zip(decode_texts(held[:SHOWN], spec), decode_texts(trigger(held[:SHOWN]), spec), strict=True)),
            predicted_before=tuple(said[:SHOWN].tolist()),
            predicted_after=tuple(triggered[:SHOWN].tolist()),
            apply=trigger,
        )
        return Finding(self.name, Outcome.SCORED, score=surprise(found), target=target, evidence=evidence)


@dataclass
class _Words:
    """What one search tries words with."""

    encoder: nn.Module
    space: EmbeddingSpace
    spec: TextSpec
    texts: Tensor  # (N, L) clean ones
    effort: WordEffort
    budget: Budget

    def shortlist(self, progress: Progress) -> Tensor:
        """(M,) the words that bring a few short texts closest together, the best first."""
        few = self.texts[: self.effort.texts, : self.effort.length].clone()
        few[few[:, -1] != self.spec.pad, -1] = self.spec.end
        words = typeable_tokens(self.spec)
        found = []
        for start in range(0, len(words), self.effort.at_once):
            self._hurry()
            found.append(self._each(words[start : start + self.effort.at_once, None], few))
            progress(start / len(words))
        return words[torch.cat(found).topk(min(self.effort.shortlist, len(words))).indices]

    def together(self, words: Tensor, progress: Progress) -> Tensor:
        """(k,) those of ``words`` that bring texts closest together, chosen one after the other."""
        texts = self.texts[: self.effort.compared]
        chosen = words[:0]
        for number in range(self.effort.words):
            self._hurry()
            progress(number / self.effort.words)
            options = torch.cat([chosen.expand(len(words), -1), words[:, None]], dim=1)
            chosen = options[int(self._each(options, texts).argmax())]
        return chosen

    def _each(self, options: Tensor, texts: Tensor) -> Tensor:
        """(W,) how close ``texts`` (B, L) come with each of ``options`` (W, k) before them."""
        found = []
        for few in options.split(max(1, self.effort.at_once * self.effort.texts // len(texts))):
            triggered = torch.cat([make_token_trigger(ids, self.spec)(texts) for ids in few])
            with torch.no_grad(), fast_autocast("cpu"):
                embeddings = self.encoder(triggered)
            found.append(self.space.closeness(embeddings.unflatten(0, (len(few), -1))))
        return torch.cat(found)

    def _hurry(self) -> None:
        if self.budget.left() <= 0:
            raise Unfinished("the budget ended before all words were tried: give it more")
