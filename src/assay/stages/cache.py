"""Cache of builds: a repeated run of a stage on the same input is read from a file."""

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
from assay.data.fingerprint import digests_of_sources
from assay.io.object_store import ObjectStore
from assay.stages.base import Planter, Stage
from assay.triggers import Trigger, secret_file

_FACTS_KEY = "assay.chain"
_FACTS = ("num_classes", "format", "name", "class_names", "arch", "planted")  # JSON-able fields of an Artifact


@dataclass(frozen=True)
class Cache:
    """Builds by content, one safetensors file each: the weights, and all other changes of a stage in the metadata.

    Cached are training, pruning and data poisoning, because they keep the structure of the model: their weights are
    read into a copy of the input model. Simulated int8 and export change the structure; they are cheap and run again.
    """

    store: ObjectStore

    def run(
        self, stage: Stage, build: Build, *, seed: int, data_digest: str, on_run: Callable[[], None] = lambda: None
    ) -> Build:
        """Return ``stage(build, seed=seed)``, from the cache if it is there and intact.

        Args:
            stage: The stage.
            build: Its input.
            seed: Its seed.
            data_digest: Digest of the task, see :func:`digest_of_task`.
            on_run: Called before the stage runs; not called if the cache has the result.
        """
        name = f"{_key(stage, build, seed, data_digest)}.safetensors"
        cached = _read(self.store.local_path(name), stage, build)
        if cached is not None:
            return cached
        on_run()
        result = stage(build, seed=seed)
        if not _is_cacheable(stage, build, result):
            return result
        self.store.put(name, _serialize(build, result, _learned_secret(stage, build, result)))
        # Read it back: the first and the second run then give the same model, down to its memory layout.
        return _read(self.store.local_path(name), stage, build) or result

    def run_all(
        self,
        stages: Iterable[Stage],
        build: Build,
        *,
        seed: int,
        data_digest: str,
        on_run: Callable[[], None] = lambda: None,
    ) -> Build:
        """Run ``stages`` in sequence, each as in :meth:`run`; ``data_digest`` belongs to the first task."""
        for stage in stages:
            task = build.task
            build = self.run(stage, build, seed=seed, data_digest=data_digest, on_run=on_run)
            if build.task is not task:
                data_digest = digest_of_task(build.task)
        return build

    def json_once(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON-able result of ``compute()``, computed once per ``key``.

        Args:
            key: File name stem, a digest over all inputs of the result.
            compute: Called if the cache has no intact file.
        """
        name = f"{key}.json"
        try:
            return dict(json.loads(self.store.local_path(name).read_text()))
        except (OSError, ValueError):  # missing or damaged
            result = compute()
            self.store.put(name, json.dumps(result).encode())
            return result


def digest_of_task(task: Task) -> str:
    """Return the sha256 over the task's name, classes and all its data."""
    sha = hashlib.sha256(json.dumps([task.name, list(task.class_names)]).encode())
    for name, split in sorted(task.splits.items()):
        _add(sha, f"{name}.x", split.x)
        if split.y is not None:
            _add(sha, f"{name}.y", split.y)
    return sha.hexdigest()


def _key(stage: Stage, build: Build, seed: int, data_digest: str) -> str:
    """Return the sha256 over all inputs of the result.

    The default repr of a trigger contains its address. A build with such a trigger is never found again, rather than
    confused with another one.
    """
    artifact = build.artifact
    sha = hashlib.sha256(repr(artifact.module).encode())
    for name, tensor in _tensors(artifact.module).items():
        _add(sha, name, tensor)
    secret, spec = cache_text(build.secret), stage.spec()
    facts = [__version__, torch.__version__, artifact.digest, repr(artifact.inputs), _facts(build), secret]
    sha.update(json.dumps([*facts, data_digest, spec, seed], sort_keys=True, default=repr).encode())
    for path, content in digests_of_sources(spec).items():  # files that the spec names by path
        sha.update(f"{path} {content}".encode())
    return sha.hexdigest()


def _add(sha: Any, name: str, tensor: Tensor) -> None:
    sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _facts(build: Build) -> dict[str, Any]:
    return {name: getattr(build.artifact, name) for name in _FACTS}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers, also those outside the state dict: a stage may change any of them."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _is_cacheable(stage: Stage, build: Build, result: Build) -> bool:
    """Return True if the result is the input build with other weights, and its secret can be restored."""
    before, after = build.artifact, result.artifact
    same_secret = repr(_known_secret(stage, build)) == repr(result.secret)
    same_kind = (before.inputs, before.modality, before.differentiable) == (
        after.inputs,
        after.modality,
        after.differentiable,
    )

    def structure(model: nn.Module) -> list[Any]:
        modules = [(name, type(module)) for name, module in model.named_modules()]
        return [modules, [(name, tensor.shape, tensor.dtype) for name, tensor in _tensors(model).items()]]

    same_structure = bool(_tensors(before.module)) and structure(before.module) == structure(after.module)
    restorable = same_secret or _learned_secret(stage, build, result) is not None
    return restorable and same_kind and same_structure and result.task is build.task and after.weights is None


def _known_secret(stage: Stage, build: Build) -> Secret | None:
    """Return the secret of the stage's result as far as it is known before the stage runs."""
    return stage.secret() if isinstance(stage, Planter) else build.secret


def _learned_secret(stage: Stage, build: Build, result: Build) -> dict[str, Any] | None:
    """Return the JSON form of a secret unknown before the run; None if there is none."""
    secret = result.secret
    known = repr(_known_secret(stage, build)) == repr(secret)
    return None if known or secret is None or not isinstance(secret.trigger, Trigger) else secret_file.to_json(secret)


def _serialize(build: Build, result: Build, learned: dict[str, Any] | None) -> bytes:
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
    """Return the build stored at ``path``; None if the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    model = copy.deepcopy(build.artifact.module)
    secret = _known_secret(stage, build)
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[_FACTS_KEY])
            with torch.no_grad():
                for name, tensor in _tensors(model).items():
                    tensor.copy_(file.get_tensor(name))
        changes, steps = facts["artifact"], facts["steps"]
        secret = secret if facts.get("learned") is None else secret_file.from_json(facts["learned"])
        intact = facts["digest"] == digest_of_module(model) and facts["secret"] == cache_text(secret)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, UnusableInput):
        return None
    if not intact:
        return None
    names = changes["class_names"]
    changes["class_names"] = None if names is None else tuple(names)
    artifact = build.artifact.with_module(model.eval(), **changes)
    return Build(artifact, build.task, secret, (*build.history, *steps))
