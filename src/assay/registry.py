"""What is built in, read from the code itself: the docstrings are the one place where papers are cited."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from assay import attacks, detectors, mitigations
from assay.attacks.base import Attack
from assay.attacks.compression.base import Dormant
from assay.attacks.encoder.base import EncoderAttack
from assay.attacks.graph.base import GraphEdit
from assay.core.finding import BACKDOOR_TECHNIQUE
from assay.detectors.base import Detector
from assay.stages import variants
from assay.stages.base import Stage
from assay.stages.distil import Distil
from assay.stages.downstream import Downstream
from assay.stages.export import FULL_FILE, INT8_FILE, ExportInt8, ExportOnnx
from assay.stages.persist import Persist
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16, QuantizeWeights
from assay.stages.train import FineTune, LinearProbe, Train

POISONING_TECHNIQUE = "AML.T0020"
"""MITRE ATLAS: Poison Training Data."""

ATTACKS: dict[str, type[Attack]] = {
    kind.name: kind
    for kind in (
        attacks.BadNets,
        attacks.Blended,
        attacks.PqBackdoor,
        attacks.PqDistilled,
        attacks.QuAntiZation,
        attacks.QuantizationArtifact,
        attacks.PruningArtifact,
        attacks.SilentUntilMagnitude,
        attacks.SilentUntilPruned,
        attacks.SilentUntilSparse,
        attacks.Architectural,
        attacks.ArchitecturalLogic,
        attacks.Checksum,
        attacks.ShadowLogic,
        attacks.Signature,
        attacks.BadEncoder,
        attacks.Por,
        attacks.TransTroj,
        attacks.TransTrojText,
    )
}

MITIGATIONS: dict[str, type[Stage]] = {
    "compressed-tuning": mitigations.CompressedTuning,
    "efrap": mitigations.Efrap,
    "low-bit-randomization": mitigations.LowBitRandomization,
    "smoothing": mitigations.Smoothing,
    "random-rounding": mitigations.RandomRounding,
    "super-fine-tuning": mitigations.SuperFineTuning,
    "trigger-unlearning": mitigations.TriggerUnlearning,
    "universal-training": mitigations.UniversalTraining,
}
"""Stages that are made against backdoors; others defend by the way."""

STAGES: dict[str, type[Stage]] = {
    "train": Train,
    "fine-tune": FineTune,
    "linear-probe": LinearProbe,
    "downstream": Downstream,
    "prune-magnitude": PruneMagnitude,
    "prune-filters": PruneFilters,
    "prune-2:4": PruneTwoFour,
    "bf16": Bf16,
    "weights": QuantizeWeights,
    "int8": ExportInt8,
    "export": ExportOnnx,
    "persist": Persist,
    "distil": Distil,
    **MITIGATIONS,
}
"""The stages of ``assay stage`` and of a bench."""

FILES = {"export": FULL_FILE, "int8": INT8_FILE}
"""The stages that make a file of their own, which no other stage can change any more, and what it is called."""

CITATION = re.compile(
    r"\b[A-Z][\w-]+(, [A-Z][\w-]+)*( et al\.)?"  # authors
    r"(: ((?!\. ).)+?|, )\b(19|20)\d\d\b"  # title, where it appeared, year
    r"(, arXiv \d{4}\.\d{4,5})?"
)

FORMATS = {
    "huggingface": "huggingface.load",
    "safetensors": "safetensors",
    "onnx": "onnx.load",
    "module": "torch_module",
}


@dataclass(frozen=True)
class Entry:
    """One thing that is built in."""

    kind: str  # "attack", "detector", "stage", "mitigation", "variant", "format"
    name: str
    summary: str
    paper: str = ""
    technique: str = ""  # MITRE ATLAS


def catalogue() -> tuple[Entry, ...]:
    """Everything, kind by kind."""
    return (*_attacks(), *_detectors(), *_stages(), *_mitigations(), *_variants(), *_formats())


def all_detectors() -> tuple[Detector, ...]:
    """One of each detector of ``assay.detectors``, null controls among them."""
    kinds = [getattr(detectors, name) for name in detectors.__all__]
    made = (kind() for kind in kinds if inspect.isclass(kind) and not inspect.isabstract(kind))
    return tuple(detector for detector in made if isinstance(detector, Detector))


def summary_of(text: str | None) -> str:
    """The first sentence or line of a docstring, without its full stop."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split()).removesuffix(".")


def paper_of(text: str | None) -> str:
    """The first citation in a docstring: authors, title, year and, if given, arXiv id; empty where there is none."""
    found = CITATION.search(" ".join((text or "").split()))
    return found[0] if found else ""


def _attacks() -> Iterator[Entry]:
    for name, kind in ATTACKS.items():
        text = inspect.getmodule(kind).__doc__  # type: ignore[union-attr]
        technique = BACKDOOR_TECHNIQUE if issubclass(kind, Dormant | EncoderAttack | GraphEdit) else POISONING_TECHNIQUE
        yield Entry("attack", name, summary_of(text), paper_of(text), technique)


def _detectors() -> Iterator[Entry]:
    used = {detector.name for detector in (*detectors.default_detectors(), *detectors.encoder_detectors())}
    for detector in all_detectors():
        control = detector.name not in used
        paper = "" if control else paper_of(inspect.getmodule(type(detector)).__doc__)  # type: ignore[union-attr]
        yield Entry("detector", detector.name, detector.title, paper, "" if control else BACKDOOR_TECHNIQUE)


def _stages() -> Iterator[Entry]:
    for name, kind in STAGES.items():
        if name not in MITIGATIONS:
            yield Entry("stage", name, summary_of(kind.__doc__), paper_of(kind.__doc__))


def _mitigations() -> Iterator[Entry]:
    for name, kind in MITIGATIONS.items():
        text = inspect.getmodule(kind).__doc__  # type: ignore[union-attr]
        yield Entry("mitigation", name, summary_of(text), paper_of(text))


def _variants() -> Iterator[Entry]:
    for name, variant in variants.VARIANTS.items():
        yield Entry("variant", name, variant.spec + (" (by default)" if name in variants.DEFAULT else ""))


def _formats() -> Iterator[Entry]:
    for name, module in FORMATS.items():
        yield Entry("format", name, summary_of(importlib.import_module(f"assay.formats.{module}").__doc__))
