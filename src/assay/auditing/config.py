"""Configuration of an audit, and the command to repeat it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from assay.calibration.null import NullDistribution
from assay.core.dataset import Split, Task
from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.core.options import ModelOptions
from assay.stages.variants import DEFAULT

if TYPE_CHECKING:
    from assay.detectors.base import Detector


@dataclass(frozen=True)
class FindingsFolder:
    """Folder for the findings of finished tests."""

    path: Path
    loaded_with: ModelOptions = field(default_factory=ModelOptions)  # of a model that is loaded already
    fresh: bool = False  # True: take no stored findings


# A path or hub id, a module in memory, or a loaded model.
ModelSource: TypeAlias = str | Path | nn.Module | Artifact

# A source as on the command line, a Task, a Split, images, [images, labels], a torch DataLoader or Dataset.
DataSource: TypeAlias = (
    str | Path | Task | Split | Tensor | np.ndarray | DataLoader[Any] | Dataset[Any] | Sequence[Any] | None
)


@dataclass(frozen=True)
class AuditConfig:
    """Configuration of one audit, as given by the user."""

    variants: tuple[str, ...] = DEFAULT
    detectors: Sequence[Detector | str] | str | None = None  # None: the default detectors
    labels: bool = True  # False: the data have no labels, even if something looks like labels
    budget: float = math.inf  # seconds
    reference: ModelSource | None = None  # the original model of a compressed one, or a trusted encoder
    reference_arch: str | None = None
    reference_pooling: str | None = None  # None: as the model's
    reference_output: str | None = None
    null: NullDistribution | str | Path | None = None  # None: the null distribution of the package
    seed: int = 0
    label_column: str | None = None  # of a table; None: a usual name
    quick: bool = False  # part of the tests, on the model as given only
    findings: FindingsFolder | None = None  # folder for the findings of finished tests; None: none are stored
    jobs: int = 1  # processes that run the tests

    def __post_init__(self) -> None:
        if self.quick and (self.variants != DEFAULT or self.detectors is not None):
            raise UnusableInput(
                "expected a quick audit without a list of variants or detectors, got both: a quick audit chooses them. "
                "Fix: leave one of the two out."
            )
        if self.jobs < 1:
            raise UnusableInput(f"expected at least 1 process for the tests, got {self.jobs}. Fix: give jobs=1.")
        named = self.reference_setting
        if named and self.reference is None:
            raise UnusableInput(f"expected a reference for {named}, got none. Fix: give a reference, or leave it out.")
        if self.label_column is not None and not self.labels:
            raise UnusableInput(
                f"expected the label column {self.label_column!r} or no labels, got both. Fix: leave one of them out."
            )

    @property
    def reference_setting(self) -> str:
        """Name of the first setting that applies to the reference only; empty if none is given."""
        names = ("reference_arch", "reference_pooling", "reference_output")
        return next((name for name in names if getattr(self, name) is not None), "")

    def reference_options(self, options: ModelOptions) -> ModelOptions:
        """Return the options for loading the reference, out of those of the model."""
        return replace(
            options,
            arch=self.reference_arch,
            pooling=self.reference_pooling or options.pooling,
            output=self.reference_output,
        )


def audit_keywords(options: ModelOptions, config: AuditConfig) -> dict[str, object]:
    """Return the keyword arguments of ``assay.audit`` to repeat an audit.

    Args:
        options: Options of the model.
        config: Settings of the audit.
    """
    numbers = {name: getattr(options, name) for name in ("mean", "std")}
    detectors = config.detectors
    keywords: dict[str, object] = {
        "arch": options.arch,
        "shape": None if options.shape is None else tuple(map(int, options.shape)),
        **{name: None if value is None else tuple(map(float, value)) for name, value in numbers.items()},
        "features": options.features or None,
        "pooling": options.pooling,
        "output": options.output,
        "labels": None if config.labels else False,
        "label_column": config.label_column,
        "variant_names": None if config.quick else config.variants,
        "detectors": detectors if detectors is None or isinstance(detectors, str) else tuple(detectors),
        "budget": config.budget if math.isfinite(config.budget) else None,
        "reference": config.reference,
        "reference_arch": config.reference_arch,
        "reference_pooling": config.reference_pooling,
        "reference_output": config.reference_output,
        "null": config.null,
        "quick": config.quick or None,
        "jobs": None if config.jobs == 1 else config.jobs,
        "seed": config.seed,
    }
    return {name: value for name, value in keywords.items() if value is not None}


def python_call(model: object, data: object, keywords: Mapping[str, object]) -> str:
    """Return the Python call to repeat an audit. Objects in memory appear as variables.

    Args:
        model: As given to ``assay.audit``.
        data: As given to ``assay.audit``; None: omitted.
        keywords: Keywords of ``audit_keywords``.
    """
    positional = [("model", model)] if data is None else [("model", model), ("data", data)]
    arguments = [_python_value(value, name) for name, value in positional]
    arguments += [f"{name}={_python_value(value, name)}" for name, value in keywords.items()]
    return f"assay.audit({', '.join(arguments)})"


def shell_command(words: Sequence[str], options: Mapping[str, object]) -> str:
    """Return a shell command line.

    Args:
        words: Command and positional arguments.
        options: Values by name. ``True`` makes a switch, ``None`` and ``False`` no option; tuples get commas.
    """
    parts = list(words)
    for name, value in options.items():
        if value is None or value is False:
            continue
        parts.append("--" + name.replace("_", "-"))
        if value is not True:
            parts.append(_shell_value(value))
    return shlex.join(parts)


def shell_options(keywords: Mapping[str, object]) -> dict[str, object]:
    """Return the options of the command line for keyword arguments of ``assay.audit``."""
    names = {"variant_names": "variants", "labels": "no_labels"}
    return {names.get(name, name): True if name == "labels" else value for name, value in keywords.items()}


def _shell_value(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_shell_value, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _python_value(value: object, name: str) -> str:
    """Return a plain value as Python source, and any other object as the variable ``name``."""
    if isinstance(value, Path):
        return repr(str(value))
    parts = value if isinstance(value, tuple) else (value,)
    return repr(value) if all(isinstance(part, str | int | float) for part in parts) else name
