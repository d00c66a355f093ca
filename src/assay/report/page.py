"""The audit as one self-contained HTML page: no scripts, no network."""

from __future__ import annotations

import jinja2
from markupsafe import escape

from assay.report.view import page_of
from assay.result import Audit


def environment() -> jinja2.Environment:
    """How every page is made: what is put into it is escaped, and a misspelt name is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("assay.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def to_html(audit: Audit) -> str:
    """The page. Everything that comes from the model or its data is escaped."""
    text = environment().get_template("report.html.j2").render(page=page_of(audit))
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def notebook(audit: Audit) -> str:
    """The page inside a frame, for a notebook's output cell: its styles and the notebook's stay apart."""
    return (
        f'<iframe title="assay report" sandbox="" srcdoc="{escape(to_html(audit))}" '
        'style="width:100%;height:720px;border:0;border-radius:8px"></iframe>'
    )
