"""The audit as one self-contained HTML page: no scripts, no network."""

from __future__ import annotations

from markupsafe import escape

from assay.core.result import Audit
from assay.io.templates import template_environment
from assay.report.view import page_of

TEMPLATES = "assay.report"  # package of the folder "templates"


def to_html(audit: Audit) -> str:
    """The page. Everything that comes from the model or its data is escaped."""
    text = template_environment(TEMPLATES).get_template("report.html.j2").render(page=page_of(audit))
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def notebook(audit: Audit) -> str:
    """The page inside a frame, for a notebook's output cell: its styles and the notebook's stay apart."""
    return (
        f'<iframe title="assay report" sandbox="" srcdoc="{escape(to_html(audit))}" '
        'style="width:100%;height:720px;border:0;border-radius:8px"></iframe>'
    )
