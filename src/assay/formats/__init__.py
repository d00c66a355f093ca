"""Model files -> ``Artifact`` and back, one module per format.

Loading never unpickles and never runs code of the model's repository. The network is used for a Hugging Face hub id
only. An architecture ``package.module:function`` is the one way to run code, and it is the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from assay.core.errors import UnusableInput, foreign_errors
from assay.core.model import Artifact
from assay.core.options import ModelOptions
from assay.formats.feature_extractor import to_feature_extractor
from assay.formats.options import LoadOptions
from assay.formats.shape import refuse_length
from assay.formats.torch_module import from_module
from assay.io.files import PICKLES, refuse_pickle
from assay.io.hub_ids import hub_id
from assay.kinds import Seen, look
from assay.kinds.table import ADAPTER, HUGGINGFACE, ONNX
from assay.sandbox.phases import reading

__all__ = ["from_module", "load", "save"]

LOCAL_SUFFIXES = {".safetensors", ".onnx", *PICKLES}


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: bool = False,
    pooling: str | None = None,
    output: str | None = None,
    base: str | Path | None = None,
) -> Artifact:
    """Load a model: a Hugging Face directory or hub id, a ``.safetensors`` file, an ``.onnx`` file, a LoRA adapter.

    ``assay.kinds.look`` names the kind of the model first. A kind without a reader is refused before any import.

    The artifact's ``notes`` list every guess. Only a hub id uses the network: ``hf:owner/name``, or ``owner/name``
    if neither that path nor the folder ``owner`` exists.

    Args:
        path: The model.
        arch: Architecture of a bare safetensors file (see ``assay.formats.safetensors``).
        shape: (C, H, W) of images or (L,) of texts in tokens, in place of the model's own.
        mean: One mean per channel for pixels in [0, 1], in place of the model's own.
        std: As many standard deviations.
        features: Cut a classifier before its last linear layer. The outputs are features.
        pooling: Embedding of a Hugging Face encoder without its own: pooler, cls or mean.
        output: Name of the logits among several outputs; of a tuple, the position.
        base: Folder or hub id of a LoRA adapter's base model. Both are merged in memory.

    Raises:
        UnusableInput: The model cannot be loaded safely and completely.
    """
    options = LoadOptions.parse(ModelOptions(arch, shape, mean, std, features, pooling, output))
    try:
        with foreign_errors(str(path)):
            artifact = _load(str(path), options, features=features, base=None if base is None else str(base))
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or path}: {error.strerror or error}") from None
    if options.normalization is not None:
        artifact = replace(artifact, normalization_from="as given")
    return to_feature_extractor(artifact) if features else artifact


def save(artifact: Artifact, directory: Path, *, planted: str | None = None) -> Path:
    """Write ``directory/model.safetensors``, completely or not at all, with all metadata for ``load``.

    Args:
        artifact: Model with weights in torch.
        directory: Folder of the file. A missing folder is created.
        planted: Mark of a backdoor planted by assay. Marks of the artifact are always kept.

    Returns:
        Path of the file.
    """
    from assay.formats.safetensors import save_safetensors

    return save_safetensors(artifact, directory, planted=planted)


def _load(text: str, options: LoadOptions, *, features: bool, base: str | None) -> Artifact:
    repository = hub_id(text, local_suffixes=LOCAL_SUFFIXES)
    if repository is not None:
        from assay.formats.huggingface.load import load_hub

        options.refuse_arch(text)
        return load_hub(repository, options, features=features)
    path = Path(text)
    refuse_pickle(path)
    seen = look(path)
    if seen is None:
        raise UnusableInput(
            f"no such model: {text} (expected a .safetensors or .onnx file, a Hugging Face directory or a hub id)"
        )
    seen.refuse(features=features, arch=options.arch is not None, base=base is not None)
    if base is not None and seen.kind.reader != ADAPTER:
        raise UnusableInput(f"{path}: expected no base model, got {base} for {seen.kind.label}. Fix: leave it out.")
    with reading(f"reading {text}", path):
        artifact = _read(seen, options, base, features=features)
    return replace(artifact, notes=(*artifact.notes, *seen.notes)) if seen.notes else artifact


def _read(seen: Seen, options: LoadOptions, base: str | None, *, features: bool) -> Artifact:
    """Load a model with the reader of its kind."""
    reader, path = seen.kind.reader, seen.model or seen.path
    if reader == ADAPTER:
        from assay.formats.lora import load_adapter

        assert base is not None  # refused without
        return load_adapter(seen.path, base, options, features=features)
    if reader == HUGGINGFACE:
        from assay.formats.huggingface.load import load_directory

        options.refuse_arch(str(path))
        return load_directory(path, options)
    if options.pooling is not None:
        raise UnusableInput(f"{path}: expected pooling for a Hugging Face encoder only. Fix: leave it out.")
    if reader == ONNX:
        from assay.formats.onnx.load import load_onnx

        options.refuse_arch(str(path))
        refuse_length(options.length, str(path))
        return load_onnx(path, options)
    from assay.formats.safetensors import load_safetensors

    return load_safetensors(path, options)
