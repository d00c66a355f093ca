"""First look at a model: its kind, its reader, or one line with the way to a model that assay reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from assay.core.errors import Inconclusive, UnusableInput
from assay.core.options import ModelOptions
from assay.io.files import check_plain_file, inside, read_json, refuse_pickle
from assay.kinds.config import kind_of_config
from assay.kinds.files import kind_of_file
from assay.kinds.table import KINDS, Kind

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER, MODULES, PIPELINE = "adapter_config.json", "modules.json", "model_index.json"
ONNX_FOLDER = "onnx"
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
MODELS = (".safetensors", ".onnx")
# Weights of other frameworks in a folder, by name, and pickles of torch.
OTHER_WEIGHTS = (
    ("pytorch_model.bin", "pickle"), ("pytorch_model.bin.index.json", "pickle"), ("flax_model.msgpack", "flax"),
    ("tf_model.h5", "tf-weights"), ("model.weights.h5", "keras"), ("openvino_model.xml", "openvino"),
    ("rust_model.ot", "pickle"), ("model.mlpackage", "coreml"),
)  # fmt: skip
TEXT_TESTS = ("graph", "fourier-key")  # detectors that run on a text classifier
MAX_ENTRIES = 20_000  # of a folder
MAX_NAMES = 4  # in a message


@dataclass(frozen=True)
class Seen:
    """Result of the first look at a path."""

    path: Path
    kind: Kind
    detail: str = ""  # class name or file name, for messages
    model: Path | None = None  # the file or folder to load, if it is not the path itself
    unused: tuple[str, ...] = ()  # further models in the folder

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on models in the folder that are not loaded."""
        names = ", ".join(self.unused[:MAX_NAMES])
        more = f" and {len(self.unused) - MAX_NAMES} more" if len(self.unused) > MAX_NAMES else ""
        return (f"the folder holds further models, which are not examined: {names}{more}",) if self.unused else ()

    def refuse(self, *, features: bool = False, arch: bool = False, base: bool = False) -> None:
        """Raise UnusableInput if assay has no reader for this kind with the given options.

        Args:
            features: The model is cut before its last layer.
            arch: The user gives an architecture.
            base: The user gives a base model.
        """
        key = self.kind.key
        enough = {"multi-label": features, "timm": arch, "lora": base}
        if self.kind.reader is not None and enough.get(key, True):
            return
        detail = f" ({self.detail})" if self.detail else ""
        raise UnusableInput(
            f"{self.path}: expected a classifier or an encoder of images or texts, got {self.kind.label}{detail}. "
            f"Fix: {self.kind.fix}."
        )

    def refuse_undecided(self, *, decided: bool, features: bool = False) -> None:
        """Raise Inconclusive if no verdict is possible for this kind, before any work.

        Args:
            decided: The user gives reference models, or names the tests to run.
            features: The model is cut before its last layer.
        """
        if self.kind.key == "text-classifier" and not (decided or features):
            raise Inconclusive(
                f"{self.path}: expected a model with a trigger search, got {self.kind.label} ({self.detail}). Only "
                f"{' and '.join(TEXT_TESTS)} run on it: they can prove a backdoor, and never clear a model. "
                "Fix: name these detectors to run them, or audit its encoder (features)."
            )


def first_look(model: str | Path, options: ModelOptions, *, base: bool = False, decided: bool = True) -> Seen | None:
    """Return the kind of a model, and refuse a kind that no audit can use, in a second and without imports.

    Args:
        model: Path or hub id.
        options: Loading options of the user.
        base: The user gives a model that can be the base of an adapter.
        decided: The user gives reference models, or names the tests to run.

    Returns:
        None for a hub id.

    Raises:
        UnusableInput: assay has no reader for this kind with these options.
        Inconclusive: No verdict is possible for this kind.
    """
    refuse_pickle(Path(model))
    seen = look(model)
    if seen is not None:
        seen.refuse(features=options.features, arch=options.arch is not None, base=base)
        seen.refuse_undecided(decided=decided, features=options.features)
    return seen


def look(path: str | Path) -> Seen | None:
    """Return the kind of a model file or folder; None if nothing is there, as for a hub id.

    Raises:
        UnusableInput: The file is a pointer, a web page, empty or special, or a config is malformed.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _look_at_folder(path)
        if not path.exists() and not path.is_symlink():
            return None
        return _look_at_file(path)
    except OSError as error:
        raise UnusableInput(f"cannot read {error.filename or path}: {error.strerror or error}") from None


def _look_at_file(path: Path) -> Seen:
    check_plain_file(path)
    if path.name == ADAPTER or path.name == CONFIG:
        return _look_at_folder(path.parent)
    refuse_pickle(path)
    key = kind_of_file(path)
    if f".{key}" in MODELS and path.suffix.lower() != f".{key}":
        raise UnusableInput(
            f"{path}: expected a name that fits the content, got {KINDS[key].label} with the suffix "
            f"{path.suffix or '(none)'}. Fix: rename it to .{key}."
        )
    if key in ("safetensors", "onnx"):
        return _with_config(Seen(path, KINDS[key]), path)
    return Seen(path, KINDS[key], path.suffix)


def _with_config(seen: Seen, model: Path) -> Seen:
    """Return the kind of a model file, refined by the task in the config next to it."""
    if model.name.startswith("adapter_model") and (model.parent / ADAPTER).exists():
        return replace(_look_at_folder(model.parent), path=seen.path)
    folder = model.parent.parent if model.parent.resolve().name == ONNX_FOLDER else model.parent
    for place in dict.fromkeys((model.parent, folder)):
        if (place / CONFIG).is_file():
            try:
                key, detail = kind_of_config(read_json(inside(place, CONFIG)))
            except UnusableInput:  # the reader notes an unusable config
                return seen
            if key in ("multi-label", "regression"):
                return Seen(seen.path, replace(KINDS[key], reader=seen.kind.reader if key == "multi-label" else None),
                            detail, model)  # fmt: skip
            return seen
    return seen


def _look_at_folder(path: Path) -> Seen:
    names = _names(path)
    if not names:
        return Seen(path, KINDS["empty-folder"])
    if ADAPTER in names:
        return _look_at_adapter(path)
    if PIPELINE in names:
        return Seen(path, KINDS["diffusers"], str(read_json(inside(path, PIPELINE)).get("_class_name", ""))[:60])
    if CONFIG in names:
        return _look_at_config(path, names)
    return _look_without_config(path, names)


def _names(path: Path) -> frozenset[str]:
    found = set()
    for entry in path.iterdir():
        found.add(entry.name)
        if len(found) > MAX_ENTRIES:
            raise UnusableInput(f"{path}: expected the folder of one model, got more than {MAX_ENTRIES} entries")
    return frozenset(found)


def _look_at_adapter(path: Path) -> Seen:
    settings = read_json(inside(path, ADAPTER))
    base = settings.get("base_model_name_or_path")
    detail = f"its base is {base[:80]!r}" if isinstance(base, str) else "its config names no base"
    method = str(settings.get("peft_type", ""))[:30]
    return Seen(path, KINDS["lora"], detail) if method.upper() == "LORA" else Seen(path, KINDS["peft"], method)


def _look_at_config(path: Path, names: frozenset[str]) -> Seen:
    key, detail = kind_of_config(read_json(inside(path, CONFIG)))
    kind = KINDS[key]
    onnx = _onnx_files(path, names)
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    if kind.reader is None:
        return Seen(path, kind, detail)
    if key == "timm":
        return _one_file(path, kind, detail, weights or onnx, names)
    if WEIGHTS in names or INDEX in names:
        inside(path, INDEX if INDEX in names else WEIGHTS)  # raises for a pointer
        own = {WEIGHTS} if INDEX not in names else set(weights)
        others = [name for name, _ in OTHER_WEIGHTS if name in names]
        return Seen(path, kind, detail, unused=(*onnx, *sorted(set(weights) - own), *others))
    if onnx:
        reader = replace(KINDS["optimum"] if key != "multi-label" else kind, reader=KINDS["onnx"].reader)
        return _one_file(path, reader, detail, onnx, names)
    return _other_weights(path, names, kind, detail)


def _onnx_files(path: Path, names: frozenset[str]) -> list[str]:
    """Return the ONNX files of a folder, those in its folder ``onnx`` included."""
    found = sorted(name for name in names if name.lower().endswith(".onnx"))
    if (path / ONNX_FOLDER).is_dir():
        more = sorted(name for name in _names(path / ONNX_FOLDER) if name.lower().endswith(".onnx"))
        found += [f"{ONNX_FOLDER}/{name}" for name in more]
    return found


def _one_file(path: Path, kind: Kind, detail: str, files: list[str], names: frozenset[str]) -> Seen:
    """Return the only model file of a folder, or the refusal to choose one of several."""
    if not files:
        return _other_weights(path, names, kind, detail)
    distinct = _distinct(path, files)
    if len(distinct) > 1:
        return Seen(path, KINDS["several-models"], ", ".join(distinct[:MAX_NAMES]))
    if distinct[0].endswith(".onnx") and kind.reader != KINDS["onnx"].reader:
        kind = replace(kind, key="optimum", reader=KINDS["onnx"].reader)
    return Seen(path, kind, detail, path / distinct[0])


def _distinct(path: Path, files: list[str]) -> list[str]:
    """Return the files without links to the same file."""
    return list({(path / name).resolve(): name for name in reversed(files)}.values())[::-1]


def _other_weights(path: Path, names: frozenset[str], kind: Kind, detail: str) -> Seen:
    """Return the kind of a folder with a config and without weights that assay reads."""
    linked = next((name for name in (WEIGHTS, INDEX) if (path / name).is_symlink()), None)
    if linked is not None:
        inside(path, linked)
    found = next(((name, key) for name, key in OTHER_WEIGHTS if name in names), None)
    if found is None:
        other = next(_other_models(path, names), None)
        return Seen(path, KINDS["no-weights"] if other is None else KINDS[other.kind.key], detail)
    name, key = found
    if key == "pickle" and name.endswith(".bin"):
        return Seen(path, kind, detail)  # the reader has the exact advice
    return Seen(path, KINDS[key], name)


def _look_without_config(path: Path, names: frozenset[str]) -> Seen:
    if any(name in names for name in SAVED_MODEL):
        return Seen(path, KINDS["saved-model"])
    if {"blobs", "snapshots"} <= names:
        return Seen(path, KINDS["hub-cache"], ", ".join(sorted(_names(path / "snapshots"))[:MAX_NAMES]))
    if {"Manifest.json", "Data"} <= names or path.suffix in (".mlpackage", ".mlmodelc"):
        return Seen(path, KINDS["coreml"])
    models = sorted(name for name in names if Path(name).suffix.lower() in MODELS) + [
        name for name in _onnx_files(path, names) if "/" in name
    ]
    if INDEX in names:
        return Seen(path, KINDS["unknown-folder"], f"{INDEX} without {CONFIG}")
    if len(_distinct(path, models)) == 1:
        return replace(_look_at_file(path / models[0]), path=path, model=path / models[0])
    if models:
        return Seen(path, KINDS["several-models"], ", ".join(models[:MAX_NAMES]))
    if MODULES in names:
        return Seen(path, KINDS["sentence-transformers"])
    folders = sorted(name for name in names if name.startswith("checkpoint-"))
    if folders:
        return Seen(path, KINDS["checkpoints"], ", ".join(folders[:MAX_NAMES]))
    other = next(_other_models(path, names), None)
    listed = ", ".join(sorted(names)[:MAX_NAMES])
    return other or Seen(path, KINDS["unknown-folder"], listed)


def _other_models(path: Path, names: frozenset[str]) -> Iterator[Seen]:
    """Yield the models of other kinds in a folder."""
    silent = ("unknown", "numpy", "image", "archive", "openvino", "onnx", "safetensors")
    for name in sorted(names):
        file = path / name
        if file.suffix == ".mlpackage":
            yield Seen(path, KINDS["coreml"], name)
        if not file.is_file():
            continue
        try:
            key = kind_of_file(file)
        except UnusableInput:
            continue
        if key not in silent:
            yield Seen(path, KINDS[key], name)
