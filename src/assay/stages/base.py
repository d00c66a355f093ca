"""Base class of supply-chain stages: each stage turns a build into the next build."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from assay.core.progress import Progress

if TYPE_CHECKING:
    from assay.core.build import Build, Secret


class Stage(ABC):
    """One supply-chain step, for instance pruning.

    A concrete stage is a frozen dataclass; its keyword-only fields are the hyper-parameters. A stage never changes
    its input build: it returns a build with a new module. The result depends only on the build, the fields and the
    seed.
    """

    needs_data: ClassVar[bool] = True  # False: works on the weights alone, without samples
    adds_head: ClassVar[bool] = False  # True: trains a classifier, so an encoder first needs a new last layer
    replaces_head: ClassVar[bool] = False  # True: the result has the classes of the data, not those of the model
    loads_data: ClassVar[bool] = False  # True: has its own fields ``data`` and ``limit``
    starts_untrained: ClassVar[bool] = False  # True: accepts a model with initial weights
    # File that the stage writes into its field ``directory``. No stage can follow such a stage.
    file_name: ClassVar[str | None] = None

    @property
    @abstractmethod
    def name(self) -> str:
        """Entry in the history of a build, for instance ``prune-magnitude-0.5``."""

    def spec(self) -> dict[str, Any]:
        """Return the class name and the hyper-parameters, JSON-able: ``{"class": ..., field: value}``."""
        return {"class": type(self).__name__, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    @abstractmethod
    def __call__(self, build: Build, *, seed: int) -> Build:
        """Return the next build."""


class TrainingStage(Stage):
    """Long-running stage with progress reports."""

    @abstractmethod
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        """Return the next build; ``progress`` receives the completed fraction, in [0, 1]."""


@runtime_checkable
class Planter(Protocol):
    """Stage with a backdoor secret known before it runs."""

    def secret(self) -> Secret:
        """Return the secret of every run: it depends on the fields only."""
        ...
