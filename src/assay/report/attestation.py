"""Check of a signed statement: its signature, its fields, the reports next to it, and the files of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from assay.core.errors import UnusableInput
from assay.core.result import STATUSES
from assay.formats.file_digests import folder_of, sidecars_in
from assay.io.files import check_plain_file, inside, sha256_of
from assay.report.bundle import ENVELOPE, STATEMENT
from assay.report.envelope import MAX_ENVELOPE_BYTES, json_object, open_envelope, shorten
from assay.report.statement import MODEL_DIGEST, PREDICATE_TYPE, STATEMENT_TYPE

SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_FILES = 4096  # subjects or reports of one statement
MODEL_SUFFIXES = {".safetensors", ".onnx"}


@dataclass(frozen=True)
class Attestation:
    """Content of a statement with a valid signature."""

    verdict: str
    status: str  # pass, fail or unknown
    files: Mapping[str, str]  # sha256 of the model's files by name; empty for a model in memory
    reports: Mapping[str, str]  # sha256 of the reports by name
    predicate: Mapping[str, Any]  # all fields


def read_attestation(path: Path, key: Ed25519PublicKey) -> Attestation:
    """Return the content of a signed statement. Reports in the same folder have to be those of the statement.

    Args:
        path: The envelope, or a report folder with one.
        key: Public key of the expected signer.

    Raises:
        UnusableInput: The envelope is missing, malformed, or not signed with this key, or a report was changed.
    """
    file = _envelope_in(path) if path.is_dir() else path
    payload = open_envelope(_read(file), key, str(file))
    found = parse_statement(payload, str(file))
    for name, digest in found.reports.items():
        report = _report_in(file.parent, name)
        if path.is_dir() and report.is_file() and sha256_of([report]) != digest:
            raise UnusableInput(f"{report}: expected the report of the signed statement, got another file")
    return found


def parse_statement(payload: bytes, where: str) -> Attestation:
    """Return the content of a statement.

    Args:
        payload: Bytes of the statement, with a checked signature.
        where: Name of the file for error messages.

    Raises:
        UnusableInput: The bytes are no statement of assay.
    """
    document = json_object(payload, where)
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if document.get(field) != expected:
            raise UnusableInput(f"{where}: expected {field} {expected}, got {shorten(document.get(field))}")
    predicate = document.get("predicate")
    if not isinstance(predicate, dict):
        raise UnusableInput(f"{where}: expected a predicate with fields, got {shorten(predicate)}")
    verdict, status = predicate.get("verdict"), predicate.get("status")
    if not isinstance(verdict, str) or STATUSES.get(verdict) != status:
        raise UnusableInput(
            f"{where}: expected a verdict with its status ({STATUSES}), got {shorten(verdict)} with {shorten(status)}"
        )
    in_memory = document.get("subject")
    if isinstance(in_memory, list) and len(in_memory) == 1 and MODEL_DIGEST in _digest_of(in_memory[0]):
        files: dict[str, str] = {}
    else:
        files = _digests(document.get("subject"), "subject", where)
        if not files:
            raise UnusableInput(f"{where}: expected at least one file as subject, got none")
    return Attestation(verdict, str(status), files, _digests(predicate.get("reports"), "reports", where), predicate)


def check_model(found: Attestation, model: Path) -> list[str]:
    """Check that the files of a model are those of a statement.

    Args:
        found: The statement.
        model: File or folder of the model.

    Returns:
        Names of model files in the folder that the statement does not cover.

    Raises:
        UnusableInput: A file is missing, was changed, or is new and changes the meaning of the others.
    """
    if not found.files:
        raise UnusableInput(f"{model}: expected a statement on files, got one on a model in memory")
    if not model.exists():
        raise UnusableInput(f"{model}: expected a model, found none")
    folder = folder_of(model)
    files = dict(found.files)
    if model.is_file():
        main = next(iter(files))  # the first file is the model itself; it may have another name now
        _compare(model, files.pop(main))
    for name, digest in files.items():
        _compare(inside(folder, name), digest)
    if new := [name for name in sidecars_in(folder) if name not in found.files]:
        raise UnusableInput(f"{folder / new[0]}: expected no such file next to the model, as in the statement, got one")
    if model.is_file():
        return []
    models = (file for file in folder.iterdir() if file.suffix.lower() in MODEL_SUFFIXES and file.is_file())
    return sorted(file.name for file in models if file.name not in found.files)


def _compare(path: Path, digest: str) -> None:
    check_plain_file(path)
    actual = sha256_of([path])
    if actual != digest:
        raise UnusableInput(f"{path}: expected sha256 {digest} of the signed statement, got {actual}")


def _report_in(folder: Path, name: str) -> Path:
    try:
        report = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # loops of links, NUL in the name
        report = Path("/")
    if not report.is_relative_to(folder.resolve()):
        raise UnusableInput(f"{folder}: the report {name!r} of the statement leads out of the folder")
    return report


def _envelope_in(folder: Path) -> Path:
    file = folder / ENVELOPE
    if not file.is_file():
        found = f"an unsigned {STATEMENT}" if (folder / STATEMENT).is_file() else "none"
        raise UnusableInput(f"{folder}: expected a signed statement, {ENVELOPE}, got {found}")
    return file


def _read(path: Path) -> bytes:
    try:
        check_plain_file(path)
        with path.open("rb") as file:
            return file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from None


def _digests(entries: object, what: str, where: str) -> dict[str, str]:
    """Return the sha256 of files by name.

    Args:
        entries: A list of names with digests.
        what: Name of the list for error messages.
        where: Name of the file for error messages.
    """
    if not isinstance(entries, list) or len(entries) > MAX_FILES:
        raise UnusableInput(f"{where}: expected a list of at most {MAX_FILES} files as {what}, got {shorten(entries)}")
    found: dict[str, str] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        digest = _digest_of(entry).get("sha256")
        if not isinstance(name, str) or not name or name in found:
            raise UnusableInput(f"{where}: expected different file names in {what}, got {shorten(name)}")
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise UnusableInput(f"{where}: expected a sha256 for each file in {what}, got {shorten(digest)}")
        found[name] = digest
    return found


def _digest_of(entry: object) -> Mapping[str, Any]:
    digest = entry.get("digest") if isinstance(entry, dict) else None
    return digest if isinstance(digest, dict) else {}


def facts(found: Attestation) -> Iterable[tuple[str, str]]:
    """Return the attested facts as pairs of label and text, for people."""
    predicate = found.predicate
    variants = predicate.get("variants")
    tested = (
        [str(item.get("name")) for item in variants if isinstance(item, dict) and item.get("outcome") == "tested"]
        if isinstance(variants, list)
        else []
    )
    yield "Verdict", f"{found.verdict} ({found.status})"
    for label, field in (("Reason", "reason"), ("Error rate", "errorRate"), ("p-value", "pValue")):
        yield label, str(predicate.get(field))
    yield "Variants tested", ", ".join(tested) or "none"
    for label, field in (("assay", "assayVersion"), ("Date", "finishedOn"), ("Command", "command")):
        yield label, str(predicate.get(field))
    for name, digest in found.files.items():
        yield "File", f"{name} sha256 {digest}"
