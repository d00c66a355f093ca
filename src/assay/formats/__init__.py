"""Model files -> ``Artifact`` and back: one file a format.

Loading never unpickles, never runs code that came with the model, and never touches the network unless a Hugging Face
hub id was given. ``--arch package.module:function`` is the one way that code runs, and it is the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.core.errors import UnusableInput
from assay.core.model import Artifact
from assay.formats.feature_extractor import to_feature_extractor
from assay.formats.huggingface.pooling import Pooling, as_pooling
from assay.formats.normalization import Normalization
from assay.formats.shape import Shape, as_length, as_shape, refuse_length
from assay.formats.torch_module import from_module
from assay.io.files import PICKLES, refuse_pickle
from assay.io.hub_ids import hub_id

__all__ = ["from_module", "load", "save"]

LOCAL_SUFFIXES = {".safetensors", ".onnx", *PICKLES}


@dataclass(frozen=True)
class _Said:
    """What the user says about the model."""

    arch: str | None
    shape: Shape | None
    normalization: Normalization | None
    pooling: Pooling | None = None
    length: int | None = None  # of texts, in tokens


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: bool = False,
    pooling: str | None = None,
) -> Artifact:
    """Loads a model: a Hugging Face directory or hub id, a ``.safetensors`` file, an ``.onnx`` file.

    ``arch`` names the architecture of a bare safetensors file (see ``assay.formats.safetensors``). ``shape`` overrides
    the size of pictures (C, H, W) that the model brings, or (L,) the length of its texts in tokens; ``mean``, ``std``
    (one value a channel, for pixels in [0, 1]) its normalization. ``features``: a classifier is cut before its last
    linear layer, to answer with what goes into that. ``pooling``: how the states of a Hugging Face encoder become one
    embedding (pooler, cls, mean) where it does not do so itself. What had to be guessed stands in the artifact's
    ``notes``.
    The network is touched only where ``path`` is a hub id: ``hf:owner/name``, or ``owner/name`` where neither that path
    nor the folder ``owner`` exists. Raises ``UnusableInput`` for whatever cannot be loaded safely and whole.
    """
    length = as_length(shape[0], "--shape") if isinstance(shape, Sequence) and len(shape) == 1 else None
    size = None if shape is None or length is not None else as_shape(shape, "--shape")
    said = _Said(arch, size, Normalization.of(mean, std), as_pooling(pooling), length)
    try:
        artifact = _load(str(path), said)
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or path}: {error.strerror or error}") from None
    return to_feature_extractor(artifact) if features else artifact


def save(artifact: Artifact, directory: Path, *, planted: str | None = None) -> Path:
    """Writes ``directory/model.safetensors``, whole or not at all; ``load`` of it needs no ``--arch``.

    ``planted`` marks the file as backdoored by assay; a mark that the artifact already has is always kept.
    """
    from assay.formats.safetensors import save_safetensors

    return save_safetensors(artifact, directory, planted=planted)


def _load(text: str, said: _Said) -> Artifact:
    repository = hub_id(text, local_suffixes=LOCAL_SUFFIXES)
    if repository is not None:
        from assay.formats.huggingface.load import load_hub

        _needs_no_arch(said, text)
        return load_hub(
            repository,
            normalization=said.normalization,
            shape=said.shape,
            length=said.length,
            pooling=said.pooling,
        )
    local = Path(text)
    refuse_pickle(local)
    if not local.exists():
        raise UnusableInput(
            f"no such model: {text} (expected a .safetensors or .onnx file, a Hugging Face directory or a hub id)"
        )
    return _load_directory(local, said) if local.is_dir() else _load_file(local, said)


def _load_file(path: Path, said: _Said) -> Artifact:
    suffix = path.suffix.lower()
    if said.pooling is not None:
        raise UnusableInput(f"--pooling is for Hugging Face encoders only; {path} answers as it does: leave it out")
    if suffix == ".safetensors":
        from assay.formats.safetensors import load_safetensors

        return load_safetensors(
            path, arch=said.arch, normalization=said.normalization, shape=said.shape, length=said.length
        )
    if suffix == ".onnx":
        from assay.formats.onnx.load import load_onnx

        _needs_no_arch(said, str(path))
        refuse_length(said.length, str(path))
        return load_onnx(path, normalization=said.normalization, shape=said.shape)
    raise UnusableInput(
        f"{path}: expected a .safetensors or .onnx file or a Hugging Face directory, came a {suffix or 'nameless'} file"
    )


def _load_directory(path: Path, said: _Said) -> Artifact:
    if (path / "config.json").exists():
        from assay.formats.huggingface.load import load_directory

        _needs_no_arch(said, str(path))
        return load_directory(
            path, normalization=said.normalization, shape=said.shape, length=said.length, pooling=said.pooling
        )
    models = sorted(file for file in path.iterdir() if file.suffix.lower() in {".safetensors", ".onnx"})
    if len(models) == 1:  # what ``assay plant --out`` writes
        return _load_file(models[0], said)
    came = ", ".join(file.name for file in models[:5]) or "neither"
    raise UnusableInput(f"{path}: expected a config.json or exactly one .safetensors or .onnx file, came {came}")


def _needs_no_arch(said: _Said, what: str) -> None:
    if said.arch is not None:
        raise UnusableInput(
            f"--arch is only for bare .safetensors files; {what} brings its own architecture: leave it out"
        )
