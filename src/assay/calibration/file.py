"""JSON file of a null distribution: the format of the shipped files and of a user's own."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from assay.calibration.data_profile import PROFILE_SPREAD
from assay.calibration.null import NullDistribution
from assay.calibration.reference import CleanReferenceModel, Score
from assay.core.errors import UnusableInput
from assay.io.atomic import write_atomically
from assay.io.files import check_plain_file

SCHEMA = "assay.null/3"
CLASSIFIERS, ENCODERS = "images.json", "encoders.json"  # names of the package's files


def save(null: NullDistribution, path: Path) -> None:
    """Write a null distribution atomically.

    Args:
        null: The reference models and their scores. The file has four decimals.
        path: JSON file; missing folders are made.
    """
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
    write_atomically(path, json.dumps(document, indent=1), parents=True)


def load(path: Path) -> NullDistribution:
    """Read a file of ``save``.

    Raises:
        UnusableInput: The file cannot be read, or is not a null distribution of this schema.
    """
    try:
        check_plain_file(path)
        content = path.read_bytes()
        document = json.loads(content.decode("utf-8"))
        if not isinstance(document, dict):
            raise ValueError(f"it holds a {type(document).__name__}")
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}")
        return replace(_parse(document), digest=hashlib.sha256(content).hexdigest())
    except UnusableInput as error:
        raise UnusableInput(f"{error} (expected a null distribution, a file of `assay calibrate`)") from None
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror}") from None
    except KeyError as error:
        problem = f"{error} is missing"
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        problem = str(error)
    raise UnusableInput(
        f"{path}: expected a null distribution ({SCHEMA}), got another file: {problem}. "
        "Fix: make it with `assay calibrate`."
    )


def _parse(document: dict[str, Any]) -> NullDistribution:
    models = tuple(_parse_model(model) for model in document["models"])
    if {len(model.data) for model in models} - {0, len(PROFILE_SPREAD)}:
        raise ValueError(f"a model's data profile does not have {len(PROFILE_SPREAD)} numbers")
    fewest = int(document["fewest_classes"])
    if fewest < 2:
        raise ValueError(f"fewest_classes is {fewest}, and must be at least 2")
    encoders = document.get("encoders", False) is True  # files from before there were encoders do not have the key
    return NullDistribution(str(document["name"]), str(document["description"]), models, fewest, encoders)


def _parse_model(model: dict[str, Any]) -> CleanReferenceModel:
    scores = {str(test): Score(_finite(score), _class(target)) for test, (score, target) in model["scores"].items()}
    accuracy = None if model["accuracy"] is None else _finite(model["accuracy"])
    data = tuple(_finite(value) for value in model["data"])
    return CleanReferenceModel(scores, str(model["origin"]), accuracy, str(model["family"]), data)


def _class(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{value!r} is not a class or null")
    return value


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _shipped(encoders: bool) -> Traversable:
    return resources.files("assay.calibration") / "shipped" / (ENCODERS if encoders else CLASSIFIERS)


def load_shipped(*, encoders: bool = False) -> NullDistribution | None:
    """Load the null distribution of the package, of classifiers or of encoders; None if the file is missing."""
    with resources.as_file(_shipped(encoders)) as path:
        return load(path) if path.exists() else None


@cache
def digest_of_shipped(*, encoders: bool = False) -> str:
    """Return the sha256 of the package's null file, of classifiers or of encoders."""
    return hashlib.sha256(_shipped(encoders).read_bytes()).hexdigest()
