"""Base class of mitigations."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from torch import nn

from assay.core.build import Build
from assay.core.dataset import Split
from assay.core.model import Artifact
from assay.core.progress import Progress
from assay.stages.base import TrainingStage
from assay.stages.train import require_trainable


class Mitigation(TrainingStage):
    """Stage to remove a backdoor from a model, or to keep it inactive.

    A concrete mitigation is a frozen dataclass with ``method`` and :meth:`mitigate`. The clean samples are those of a
    deployer: the calibration split, or else the training split.
    """

    method: ClassVar[str]  # name in ``assay stage`` and in bench specs
    classifiers_only: ClassVar[bool] = True  # False: also for encoders, and for models without torch weights
    compresses: ClassVar[bool] = False  # True: the new weights are a compressed variant, not those of the model's file

    @property
    def name(self) -> str:
        return self.method

    @abstractmethod
    def mitigate(self, artifact: Artifact, clean: Split, *, seed: int, progress: Progress) -> nn.Module:
        """Return the repaired module.

        Args:
            artifact: The model. Its ``module`` is a copy in eval mode, free to change in place.
            clean: Clean samples; empty if ``needs_data`` is False.
            seed: Decides every random choice.
            progress: Receives the completed fraction, in [0, 1].
        """

    @final
    def __call__(self, build: Build, *, seed: int, progress: Progress = lambda fraction: None) -> Build:
        if self.classifiers_only:
            require_trainable(build.artifact)
        clean = build.task.split("calibration", "train") if self.needs_data else Split(torch.empty(0), None)
        copied = replace(build.artifact, module=copy.deepcopy(build.artifact.module).eval())
        module = self.mitigate(copied, clean, seed=seed, progress=progress)
        changes: dict[str, Any] = {"format": "module"} if self.compresses else {}
        return build.then(self.name, build.artifact.with_module(module.eval(), **changes))
