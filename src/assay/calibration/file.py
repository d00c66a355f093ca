"""The file of a null distribution, as ``assay calibrate`` writes it and ``assay audit --null`` takes it."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from importlib import resources
from pathlib import Path

from assay.calibration.data_profile import STEPS
from assay.calibration.null import Null, Reference, Score
from assay.core.errors import UnusableInput
from assay.io.files import write_whole

SCHEMA = "assay.null/3"
_SHIPPED = resources.files("assay.calibration") / "shipped"
CLASSIFIERS, ENCODERS = "images.json", "encoders.json"


def save(null: Null, path: Path) -> None:
    """Write ``null`` whole or not at all."""
    models = [
        {
            "origin": model.origin,
            "accuracy": model.accuracy,
            "family": model.family,
            "data": [round(value, 4) for value in model.data],
            "scores": {test: [round(score.value, 4), score.target] for test, score in model.scores.items()},
        }
        for model in null.models
    ]
    document = {
        "schema": SCHEMA,
        "name": null.name,
        "description": null.description,
        "fewest_classes": null.fewest_classes,
        "encoders": null.encoders,
        "models": models,
    }
    write_whole(path, json.dumps(document, indent=1).encode())


def load(path: Path) -> Null:
    """Read a null that ``save`` wrote."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}")
        models = tuple(_reference(model) for model in document["models"])
        if {len(model.data) for model in models} - {0, len(STEPS)}:
            raise ValueError(f"a model's data is described by other than {len(STEPS)} numbers")
        fewest = int(document["fewest_classes"])
        if fewest < 2:
            raise ValueError(f"fewest_classes is {fewest}, and should be 2 at least")
        encoders = document.get("encoders", False) is True
        return Null(str(document["name"]), str(document["description"]), models, fewest, encoders)
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise UnusableInput(
            f"{path}: expected a null distribution as `assay calibrate` writes it; no {error}"
        ) from None
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnusableInput(
            f"{path}: expected a null distribution as `assay calibrate` writes it ({SCHEMA}); {error}"
        ) from None


def _reference(model: dict) -> Reference:
    return Reference(
        {str(test): Score(_finite(score), _class(target)) for test, (score, target) in model["scores"].items()},
        str(model["origin"]),
        None if model["accuracy"] is None else _finite(model["accuracy"]),
        str(model["family"]),
        tuple(_finite(value) for value in model["data"]),
    )


def _class(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{value!r} should be a class or null")
    return value


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} should be a finite number")
    return float(value)


def builtin(*, encoders: bool = False) -> Null | None:
    """The null that ships with the package, of classifiers or of encoders."""
    with resources.as_file(_SHIPPED / (ENCODERS if encoders else CLASSIFIERS)) as path:
        return load(path) if path.exists() else None


@cache
def digest_of_builtin(*, encoders: bool = False) -> str:
    """sha256 of the file of the null that ships with the package, of classifiers or of encoders."""
    return hashlib.sha256((_SHIPPED / (ENCODERS if encoders else CLASSIFIERS)).read_bytes()).hexdigest()
