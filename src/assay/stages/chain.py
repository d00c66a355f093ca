"""Chains of stages, and a cache that makes running one again cost nothing."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay._version import __version__
from assay.core.build import Build, Secret, cache_text
from assay.core.dataset import Task
from assay.core.errors import UnusableInput
from assay.core.model import PLANTED_KEY, digest_of_module
from assay.data.fingerprint import contents_of
from assay.io.object_store import Blobs
from assay.stages.base import Planter, Stage
from assay.triggers import Trigger, secret_file

_FACTS_KEY = "assay.chain"
_FACTS = ("num_classes", "format", "name", "class_names", "arch", "planted")  # of an Artifact, JSON-able


@dataclass(frozen=True)
class Cache:
    """Builds by content, one safetensors file each: weights, and in the metadata what else a stage changed.

    Kept are the builds of stages that leave the net's structure as it is (training, pruning, data poisoning), as
    weights for a copy of the incoming net. Stages that change it (the int8 twin, export) are cheap, and run again.
    """

    place: Blobs

    def run(self, stage: Stage, build: Build, *, seed: int, data: str, ran: Callable[[], None] = lambda: None) -> Build:
        """``stage(build, seed=seed)``, from the cache where it is there and whole. ``data``: digest of the task.

        ``ran`` is called where it was not.
        """
        name = f"{_key(stage, build, seed, data)}.safetensors"
        kept = _read(self.place.local(name), stage, build)
        if kept is not None:
            return kept
        ran()
        result = stage(build, seed=seed)
        if not _can_keep(stage, build, result):
            return result
        self.place.put(name, _written(build, result, _learned(stage, build, result)))
        # What was just written, so that a first and a second run give the same net down to its memory layout.
        return _read(self.place.local(name), stage, build) or result

    def figures(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``compute()`` gives, in plain JSON types, once for each ``key``: whatever it depends on is in that."""
        name = f"{key}.json"
        try:
            return dict(json.loads(self.place.local(name).read_text()))
        except (OSError, ValueError):  # none yet, or damaged
            found = compute()
            self.place.put(name, json.dumps(found).encode())
            return found

    def through(
        self,
        stages: Iterable[Stage],
        build: Build,
        *,
        seed: int,
        data: str,
        ran: Callable[[], None] = lambda: None,
    ) -> Build:
        """The build after all of ``stages``, each as in ``run``; ``data``: digest of the task that they begin with."""
        for stage in stages:
            task = build.task
            build = self.run(stage, build, seed=seed, data=data, ran=ran)
            data = data if build.task is task else digest_of_task(build.task)
        return build


@dataclass(frozen=True)
class Chain:
    """Stages one after the other, each with the same seed; itself a stage."""

    stages: tuple[Stage, ...]
    name: str = "chain"
    cache: Cache | None = None

    def spec(self) -> dict[str, Any]:
        return {"class": "Chain", "name": self.name, "stages": [stage.spec() for stage in self.stages]}

    def __call__(self, build: Build, *, seed: int) -> Build:
        """The build after the last stage; the same build, stages and seed give the same digest."""
        if self.cache is not None:
            return self.cache.through(self.stages, build, seed=seed, data=digest_of_task(build.task))
        for stage in self.stages:
            build = stage(build, seed=seed)
        return build


def digest_of_task(task: Task) -> str:
    """sha256 over the task's name, classes and all its data."""
    sha = hashlib.sha256(json.dumps([task.name, list(task.class_names)]).encode())
    for name, split in sorted(task.splits.items()):
        _add(sha, f"{name}.x", split.x)
        if split.y is not None:
            _add(sha, f"{name}.y", split.y)
    return sha.hexdigest()


def _key(stage: Stage, build: Build, seed: int, data: str) -> str:
    """sha256 over everything that the result depends on.

    A trigger without a repr of its own has its address in it: such a build is never found again, rather than mistaken.
    """
    artifact = build.artifact
    sha = hashlib.sha256(repr(artifact.module).encode())
    for name, tensor in _tensors(artifact.module).items():
        _add(sha, name, tensor)
    secret, spec = cache_text(build.secret), stage.spec()
    facts = [__version__, torch.__version__, artifact.digest, repr(artifact.inputs), _facts(build), secret]
    sha.update(json.dumps([*facts, data, spec, seed], sort_keys=True, default=repr).encode())
    for path, content in contents_of(spec).items():  # of files that the spec knows by their path
        sha.update(f"{path} {content}".encode())
    return sha.hexdigest()


def _add(sha: Any, name: str, tensor: Tensor) -> None:
    sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _facts(build: Build) -> dict[str, Any]:
    return {name: getattr(build.artifact, name) for name in _FACTS}


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, those too that are not in the state dict (a stage may change any of them)."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def _structure(net: nn.Module) -> list[Any]:
    modules = [(name, type(module)) for name, module in net.named_modules()]
    return [modules, [(name, tensor.shape, tensor.dtype) for name, tensor in _tensors(net).items()]]


def _can_keep(stage: Stage, build: Build, result: Build) -> bool:
    """Whether the result is the incoming build with other weights, and its secret can be named again."""
    before, after = build.artifact, result.artifact
    same_secret = repr(_secret_after(stage, build)) == repr(result.secret) or _learned(stage, build, result) is not None
    same_kind = (before.inputs, before.modality, before.differentiable) == (
        after.inputs,
        after.modality,
        after.differentiable,
    )
    same_net = bool(_tensors(before.module)) and _structure(before.module) == _structure(after.module)
    return same_secret and same_kind and same_net and result.task is build.task and after.weights is None


def _secret_after(stage: Stage, build: Build) -> Secret | None:
    """What is secret of the stage's result, as far as that is known before it has run."""
    return stage.secret() if isinstance(stage, Planter) else build.secret


def _learned(stage: Stage, build: Build, result: Build) -> dict[str, Any] | None:
    """The secret in plain JSON types where it only came up as the stage ran, and can be written down."""
    secret = result.secret
    known = repr(_secret_after(stage, build)) == repr(secret)
    return None if known or secret is None or not isinstance(secret.trigger, Trigger) else secret_file.to_json(secret)


def _written(build: Build, result: Build, learned: dict[str, Any] | None) -> bytes:
    from safetensors.torch import save

    tensors = _tensors(result.artifact.module)
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    facts = {
        "artifact": _facts(result),
        "digest": digest_of_module(result.artifact.module),
        "steps": result.history[len(build.history) :],
        "secret": cache_text(result.secret),
        "learned": learned,
    }
    metadata = {_FACTS_KEY: json.dumps(facts)}
    if result.artifact.planted is not None:
        metadata[PLANTED_KEY] = result.artifact.planted
    return save(state, metadata)


def _read(path: Path, stage: Stage, build: Build) -> Build | None:
    """The build kept at ``path``; None where there is none, or where it is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    net = copy.deepcopy(build.artifact.module)
    secret = _secret_after(stage, build)
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[_FACTS_KEY])
            with torch.no_grad():
                for name, tensor in _tensors(net).items():
                    tensor.copy_(file.get_tensor(name))
        changes, steps = facts["artifact"], facts["steps"]
        secret = secret if facts.get("learned") is None else secret_file.from_json(facts["learned"])
        whole = facts["digest"] == digest_of_module(net) and facts["secret"] == cache_text(secret)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, UnusableInput):
        return None
    if not whole:
        return None
    names = changes["class_names"]
    changes["class_names"] = None if names is None else tuple(names)
    artifact = build.artifact.with_module(net.eval(), **changes)
    return Build(artifact, build.task, secret, (*build.history, *steps))
