"""All reports of one audit in one folder."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay.core.finding import Finding
from assay.core.result import Audit
from assay.io import images
from assay.io.atomic import publish
from assay.report.envelope import sign_payload
from assay.report.json_document import dumps, to_json
from assay.report.junit import to_junit
from assay.report.page import to_html
from assay.report.sarif import to_sarif
from assay.report.statement import to_statement

# Files of an earlier audit in the same folder. Readers could mistake them for evidence of this one.
STATEMENT, ENVELOPE = "statement.json", "audit.intoto.jsonl"
STALE_FILES = ("triggers/*.trigger.png", "triggers/*.trigger.npz", ENVELOPE)


def write(audit: Audit, directory: Path, key: Ed25519PrivateKey | None = None) -> dict[str, Path]:
    """Write all reports of ``audit``, or none of them. Other files in the folder stay.

    Args:
        audit: The audit to report.
        directory: The folder, created if missing.
        key: Signs the statement; None: it stays unsigned, and an earlier envelope is removed.

    Returns:
        The paths by file name, as in ``report_files``.

    Raises:
        UnusableInput: The files cannot be written.
    """
    return publish(directory, report_files(audit, key), stale=STALE_FILES)


def report_files(audit: Audit, key: Ed25519PrivateKey | None = None) -> dict[str, bytes]:
    """Return the content of all files of a report by file name.

    These are report.html, audit.json, audit.sarif, junit.xml, statement.json and the trigger files. With a key, the
    signed statement is among them.

    Args:
        audit: The audit to report.
        key: Signs the statement; None: it stays unsigned.
    """
    texts = {
        "report.html": to_html(audit),
        "audit.json": dumps(to_json(audit)),
        "audit.sarif": dumps(to_sarif(audit)),
        "junit.xml": to_junit(audit),
    }
    content = {name: text.encode("utf-8") for name, text in texts.items()}
    for number, finding in enumerate(audit.findings):
        content.update(_trigger_files(finding, number))
    statement = dumps(to_statement(audit, content)).encode("ascii")
    content[STATEMENT] = statement
    if key is not None:
        content[ENVELOPE] = sign_payload(statement, key).encode("ascii")
    return content


def _trigger_files(finding: Finding, number: int) -> Iterator[tuple[str, bytes]]:
    name = f"triggers/{number:02d}-{_slug(finding.variant)}-{_slug(finding.detector)}.trigger"
    image = images.trigger_image(finding.evidence)
    if image is not None:
        yield f"{name}.png", images.encode_png(image)
    arrays = {
        name: np.asarray(array, dtype=np.float32)
        for name in ("mask", "trigger", "before", "after")
        if (array := getattr(finding.evidence, name)) is not None
    }
    if arrays:
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **arrays)
        yield f"{name}.npz", stream.getvalue()


def _slug(text: str) -> str:
    """Return ``text`` as part of a file name that is safe on any file system."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:40] or "unnamed"
