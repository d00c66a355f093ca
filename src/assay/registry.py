"""Catalog of the built-in attacks, detectors, stages, mitigations, variants and formats.

Names and classes come from the packages' ``__all__``; summaries and papers come from the docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from assay import attacks, detectors, mitigations
from assay.attacks.base import Attack
from assay.core.finding import BACKDOOR_TECHNIQUE
from assay.detectors.base import Detector
from assay.mitigations.base import Mitigation
from assay.stages import variants
from assay.stages.base import Stage
from assay.stages.distil import Distil
from assay.stages.downstream import Downstream
from assay.stages.export import ExportInt8, ExportOnnx
from assay.stages.persist import Persist
from assay.stages.prune import PruneFilters, PruneMagnitude, PruneTwoFour
from assay.stages.quantize import Bf16, QuantizeWeights
from assay.stages.train import FineTune, LinearProbe, Train


def concrete_classes(package: ModuleType, base: type) -> list[Any]:
    """Return the concrete subclasses of ``base`` in a package's ``__all__``."""
    exported = (getattr(package, name) for name in package.__all__)
    return [
        kind for kind in exported if inspect.isclass(kind) and issubclass(kind, base) and not inspect.isabstract(kind)
    ]


ATTACKS: dict[str, type[Attack]] = {kind.name: kind for kind in concrete_classes(attacks, Attack)}

MITIGATIONS: dict[str, type[Mitigation]] = {kind.method: kind for kind in concrete_classes(mitigations, Mitigation)}

# The stages of ``assay stage`` and of a bench.
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

# Format name -> module in ``assay.formats``.
FORMATS = {
    "huggingface": "huggingface.load",
    "safetensors": "safetensors",
    "onnx": "onnx.load",
    "module": "torch_module",
}

CITATION = re.compile(
    r"\b[A-Z][\w-]+(, [A-Z][\w-]+)*( et al\.)?"  # authors
    r"(: ((?!\. ).)+?|, )\b(19|20)\d\d\b"  # title, venue, year
    r"(, arXiv \d{4}\.\d{4,5})?"
)


@dataclass(frozen=True)
class Entry:
    """One built-in item of the catalog."""

    kind: str  # "attack", "detector", "stage", "mitigation", "variant", "format"
    name: str
    summary: str
    paper: str = ""
    technique: str = ""  # MITRE ATLAS id


def catalog() -> tuple[Entry, ...]:
    """Return all entries, kind by kind."""
    return tuple(entry for part in (_attacks, _detectors, _stages, _variants_and_formats) for entry in part())


def all_detectors() -> tuple[Detector, ...]:
    """Return one instance of each detector in ``assay.detectors``, including the null controls."""
    return tuple(kind() for kind in concrete_classes(detectors, Detector))


def summary_of(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line, without its full stop and the marks of code."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split()).removesuffix(".").replace("``", "")


def paper_of(text: str | None) -> str:
    """Return the first citation in a docstring: authors, title, year and arXiv id if present; else an empty string."""
    match = CITATION.search(" ".join((text or "").split()))
    return match[0] if match else ""


def _module_doc(kind: type) -> str | None:
    return importlib.import_module(kind.__module__).__doc__


def _attacks() -> Iterator[Entry]:
    for name, kind in ATTACKS.items():
        text = _module_doc(kind)
        yield Entry("attack", name, summary_of(text), paper_of(text), kind.technique)


def _detectors() -> Iterator[Entry]:
    default = {detector.name for detector in (*detectors.default_detectors(), *detectors.encoder_detectors())}
    for detector in all_detectors():
        if detector.name in default:
            paper, technique = paper_of(_module_doc(type(detector))), BACKDOOR_TECHNIQUE
        else:
            paper = technique = ""
        yield Entry("detector", detector.name, detector.title, paper, technique)


def _stages() -> Iterator[Entry]:
    for name, kind in STAGES.items():
        if name not in MITIGATIONS:
            yield Entry("stage", name, summary_of(kind.__doc__), paper_of(kind.__doc__))
    for name, kind in MITIGATIONS.items():
        text = _module_doc(kind)
        yield Entry("mitigation", name, summary_of(text), paper_of(text))


def _variants_and_formats() -> Iterator[Entry]:
    for name, variant in variants.VARIANTS.items():
        yield Entry("variant", name, variant.description + (" (by default)" if name in variants.DEFAULT else ""))
    for name, module in FORMATS.items():
        yield Entry("format", name, summary_of(importlib.import_module(f"assay.formats.{module}").__doc__))
