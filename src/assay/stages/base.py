"""What a stage is: one step of a model's supply chain, from a build to the next build."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from assay.core.build import Build, Secret


class Stage(Protocol):
    """A frozen dataclass whose keyword-only fields are its hyper-parameters.

    It never changes the build that it is given: the net of the build that it returns is a new one. The result depends
    only on the build, the fields and the seed. Stages that train also take ``progress``, which hears the share done.
    """

    @property
    def name(self) -> str:
        """What the history of a build calls this step, for instance ``prune-magnitude-0.5``."""
        ...

    def spec(self) -> dict[str, Any]:
        """JSON-able class name and hyper-parameters; see :func:`spec_of`."""
        ...

    def __call__(self, build: Build, *, seed: int) -> Build:
        """The next build."""
        ...


@runtime_checkable
class Planter(Protocol):
    """A stage that plants a backdoor, and can name its secret without planting it anew."""

    def secret(self) -> Secret:
        """The secret that every call plants: it depends on the fields only."""
        ...


def spec_of(stage: Any) -> dict[str, Any]:
    """``{"class": ..., hyper-parameters}`` of a stage that is a dataclass.

    Raises TypeError where ``stage`` is no dataclass instance.
    """
    return {"class": type(stage).__name__, **dataclasses.asdict(stage)}
