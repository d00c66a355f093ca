"""Style sheet, scripts and security policy of the leaderboard's pages. Pages load nothing from outside."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

PACKAGE = "assay.bench.leaderboard"  # with the folder "templates"
SCRIPTS = ("tools", "columns", "rows", "tables", "map", "record", "filters", "page")  # in order of their dependencies


@cache
def style_sheet() -> str:
    """Return the styles of the audit report, followed by those of the leaderboard."""
    return _source("assay.report", "report.css") + _source(PACKAGE, "leaderboard.css")


@cache
def page_script() -> str:
    """Return the script of the leaderboard."""
    return "\n".join(_source(PACKAGE, f"{part}.js") for part in SCRIPTS)


def security_policy(style: str, script: str | None = None) -> str:
    """Return a content security policy for the styles and the script of the page itself, and nothing else.

    Args:
        style: content of the style element.
        script: content of the script element, without the right to make markup; None: no script.
    """
    scripts = "" if script is None else f"script-src {_hash(script)}; "
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; {scripts}"
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _source(package: str, name: str) -> str:
    return resources.files(package).joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
