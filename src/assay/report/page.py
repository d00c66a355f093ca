"""Audit as one self-contained HTML page, without scripts or network access."""

from __future__ import annotations

from markupsafe import escape

from assay.core.result import Audit
from assay.io.templates import template_environment
from assay.report.view import page_of

TEMPLATES = "assay.report"  # package with the folder "templates"


def to_html(audit: Audit) -> str:
    """Return the page. All values from the model and its data are escaped."""
    text = template_environment(TEMPLATES).get_template("report.html.j2").render(page=page_of(audit))
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def notebook(audit: Audit) -> str:
    """Return the page inside a frame for a notebook's output cell. The frame separates the two style sheets."""
    return (
        f'<iframe title="assay report" sandbox="" srcdoc="{escape(to_html(audit))}" '
        'style="width:100%;height:720px;border:0;border-radius:8px"></iframe>'
    )
